"""Confidence intervals by resampling the examples with replacement (Efron 1979).

N examples
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 12345  # intervals are the same whenever they are computed


@dataclass(frozen=True)
class Score:
    """A metric, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]'


def interval(metric: Callable[[np.ndarray], float], size: int) -> Score:
    """Returns the metric of all of `size` examples and its percentile interval.

    metric: takes the numbers of the examples to count, [N] with repetitions.
    """
    rng = np.random.default_rng(SEED)
    drawn = [metric(rng.integers(0, size, size)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(metric(np.arange(size)), float(low), float(high))


def mean(values_N: np.ndarray) -> Score:
    """Returns the mean of a value that each example has, and its interval."""
    return interval(lambda numbers: float(values_N[numbers].mean()), len(values_N))
