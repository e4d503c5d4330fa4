"""Which evaluation is the best, and when there have been too many since."""

from __future__ import annotations

import math

import pytest

from configs import base
from configs.errors import UserError
from training.best import Best, cost


def experiment(metric: str, patience: int = 0):
    config = base.get_config()
    config.best_metric, config.early_stopping = metric, patience
    return config


@pytest.mark.parametrize(
    ('metric', 'lower'),
    [
        ('eval/loss', True),
        ('eval/perplexity', True),
        ('eval/bits_per_byte', True),
        ('eval/calibration_error', True),
        ('eval/docs/loss', True),
        ('eval/accuracy', False),
        ('eval/f1', False),
        ('eval/rougeL', False),
        ('eval/chrf', False),
    ],
)
def test_a_metrics_name_says_whether_lower_is_better(metric, lower):
    assert (cost(metric, 1.0) < cost(metric, 2.0)) == lower


def see(best: Best, metric: str, *values: float, first: int = 1) -> list[bool]:
    exhausted = []
    for step, value in enumerate(values, first):
        best.see(step, {metric: value, 'other': 0.0})
        exhausted.append(best.exhausted)
    return exhausted


def test_patience_counts_evaluations_that_are_not_better():
    best = Best(experiment('eval/accuracy', 2))
    assert see(best, 'eval/accuracy', 0.5, 0.7, 0.7, 0.8, 0.6, 0.8) == [False] * 5 + [True]
    assert (best.value, best.step) == (0.8, 4)
    assert str(best) == 'eval/accuracy is not better than 0.8000 of step 4 in 2 evaluations'


def test_what_is_no_number_is_never_better():
    best = Best(experiment('eval/loss', 3))
    assert see(best, 'eval/loss', math.nan, 2.0, math.nan, math.inf, 1.0) == [False] * 5
    assert (best.value, best.step) == (1.0, 5)


def test_a_run_that_goes_on_counts_on():
    values = (0.5, 0.7, 0.6, 0.65, 0.3)
    for cut in range(len(values)):
        best = Best(experiment('eval/f1', 3))
        see(best, 'eval/f1', *values[:cut])
        again = Best(experiment('eval/f1', 3), best.as_json())
        assert see(again, 'eval/f1', *values[cut:], first=cut + 1)[-1]
        assert again.as_json() == {'metric': 'eval/f1', 'value': 0.7, 'step': 2, 'since': 3}


def test_values_of_another_metric_say_nothing():
    best = Best(experiment('eval/loss', 1))
    see(best, 'eval/loss', 1.0, 2.0)
    assert best.exhausted
    assert not Best(experiment('eval/accuracy', 1), best.as_json()).exhausted


def test_a_metric_that_is_not_there_is_refused():
    with pytest.raises(
        UserError, match=r"'eval/accurcy' is not among what evaluation gives: eval/loss, eval/a"
    ):
        Best(experiment('eval/accurcy')).see(1, {'eval/loss': 1.0, 'eval/accuracy': 1.0})
    Best(experiment('')).see(1, {})
