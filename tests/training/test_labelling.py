"""Confidence is calibrated, and what is kept of labels is what was asked for."""

import numpy as np
import pytest

from tasks.examples import Example
from training.labelling import Label, choose, fit_temperature, least_certain, tempered


def test_the_temperature_that_made_probabilities_too_sharp_is_found():
    rng = np.random.default_rng(0)
    honest = tempered(rng.dirichlet([0.6, 0.6, 0.6], 20_000), 1.0)
    truth = np.array([rng.choice(3, p=p) for p in honest])
    sharp = tempered(honest, 1 / 2.5)
    assert fit_temperature(sharp, truth) == pytest.approx(2.5, rel=0.05)  # of 20,000 examples
    np.testing.assert_allclose(tempered(sharp, 2.5), honest, atol=1e-9)


def test_a_few_examples_none_wrong_make_no_certainty():
    probabilities = np.array([[0.7, 0.3]] * 10)
    p = tempered(probabilities, fit_temperature(probabilities, np.zeros(10, int)))[0, 0]
    assert p == pytest.approx(11 / 12, abs=1e-3)  # one of N + 2 shares of doubt


def label(number: int, positive: float) -> Label:
    return Label(
        Example(str(number), {}), 'yes' if positive > 0.5 else 'no', np.array([1 - positive, positive])
    )


def test_labels_are_kept_by_confidence_and_in_balance():
    labels = [label(n, p) for n, p in enumerate((0.99, 0.6, 0.95, 0.92, 0.04, 0.3))]
    assert [each.example.id for each in choose(labels, 0.9, balance=False)] == ['0', '2', '3', '4']
    assert [each.example.id for each in choose(labels, 0.9, balance=True)] == ['0', '4']
    assert [each.example.id for each in choose(labels, 0.5, balance=True)] == ['0', '2', '4', '5']
    assert [each.example.id for each in choose(labels, 0.5, per_class=1)] == ['0', '4']
    assert choose(labels, 1.0, balance=True) == []


def test_the_least_certain_have_the_smallest_margin():
    labels = [label(n, p) for n, p in enumerate((0.99, 0.6, 0.45, 0.04))]
    assert [each.example.id for each in least_certain(labels, 2)] == ['2', '1']
