"""Draws in exact shares: counts follow weights at every moment, through stages and sources used up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data import shares

INFINITE = math.inf


def random_stages(rng: np.random.Generator, number_of_sources: int) -> list[tuple[int, list[float]]]:
    starts = [0, *sorted(rng.choice(np.arange(1, 900), rng.integers(0, 4), replace=False).tolist())]
    stages = []
    for start in starts:
        weights = rng.dirichlet(np.full(number_of_sources, rng.choice([0.05, 0.3, 1.0, 100.0])))
        weights[rng.uniform(size=number_of_sources) < 0.2] = 0
        stages.append(
            (start, [float(weight) for weight in weights] if weights.any() else [1.0, *weights[1:]])
        )
    return stages


def counts_after(drawn: np.ndarray, number_of_sources: int) -> np.ndarray:
    return np.cumsum(drawn[:, None] == np.arange(number_of_sources), axis=0)


@pytest.mark.parametrize('seed', range(60))
def test_counts_are_never_further_than_one_from_the_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 12))
    stages = random_stages(rng, number)
    drawn = shares.make(stages, [INFINITE] * number).draw(0, 1000, [0] * number)
    weights = np.zeros((1000, number))  # of every draw, by the definition
    for start, given in stages:
        weights[start:] = np.array(given) / sum(given)
    distance = np.abs(counts_after(drawn, number) - np.cumsum(weights, axis=0))
    assert distance.max() <= 1 + 1e-9  # rounding of sums of a thousand numbers


@pytest.mark.parametrize('seed', range(20))
def test_draws_go_on_from_any_moment(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 8))
    drawn = shares.make(random_stages(rng, number), [INFINITE] * number)
    whole = drawn.draw(0, 1000, [0] * number)
    at = int(rng.integers(1, 999))
    taken = counts_after(whole, number)[at - 1].tolist()
    assert np.array_equal(drawn.draw(at, 1000 - at, taken), whole[at:])


def test_a_used_up_source_gives_its_share_to_the_others_in_proportion() -> None:
    drawn = shares.make([(0, [5, 3, 2])], [100, INFINITE, INFINITE])
    assert drawn.used_up == [200, INFINITE, INFINITE]
    assert drawn.due_after(200).tolist() == pytest.approx([100, 60, 40])
    assert drawn.due_after(300).tolist() == pytest.approx([100, 120, 80])
    counts = counts_after(drawn.draw(0, 1000, [0, 0, 0]), 3)
    due = np.array([drawn.due_after(n + 1) for n in range(1000)])
    assert np.abs(counts - due).max() <= 1 + 1e-9
    assert counts[-1, 0] == counts[199, 0] == 100


@pytest.mark.parametrize('seed', range(30))
def test_limits_are_reached_and_never_passed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 8))
    limits = rng.integers(0, 200, number).tolist()
    drawn = shares.make([(0, rng.uniform(0.1, 1, number).tolist())], limits)
    assert drawn.end == sum(limits)
    every = drawn.draw(0, sum(limits), [0] * number)
    assert np.bincount(every, minlength=number).tolist() == limits
    with pytest.raises(IndexError):
        drawn.draw(0, sum(limits) + 2, [0] * number)


def test_a_stage_of_used_up_sources_alone_ends_the_mixture() -> None:
    drawn = shares.make([(0, [1, 1]), (100, [1, 0])], [60, INFINITE])
    assert drawn.end == 110
    assert drawn.used_up == [110, INFINITE]


def test_temperature_makes_shares_more_alike() -> None:
    sizes = [1000, 10, 0]
    assert shares.tempered(sizes, 1.0) == sizes
    assert shares.tempered(sizes, 2.0) == pytest.approx([1000**0.5, 10**0.5, 0])
    first, second, nothing = shares.tempered(sizes, 100.0)
    assert first / second == pytest.approx(100**0.01)
    assert nothing == 0
