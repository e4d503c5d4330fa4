"""Which evaluation was the best, and whether it is too long ago to go on."""

from __future__ import annotations

import math
import re
from typing import Any

from ml_collections import ConfigDict

from configs.errors import UserError

LOWER_IS_BETTER = r'(loss|perplexity|bits_per_byte|error)$'  # of a metric's name; else higher is


def cost(metric: str, value: float) -> float:
    """Returns a number that is the lower, the better the value of a metric."""
    return value if re.search(LOWER_IS_BETTER, metric) else -value


class Best:
    """The best value of config.best_metric, when it was, and the evaluations since, which are not better.

    saved: what `as_json` gave when the run that goes on was saved; None: there was no evaluation yet.
    """

    def __init__(self, config: ConfigDict, saved: dict[str, Any] | None = None):
        self.metric, self._patience = config.best_metric, config.early_stopping
        if saved is None or saved['metric'] != self.metric:  # values of another metric say nothing
            saved = {'value': None, 'step': 0, 'since': 0}
        self.value, self.step, self._since = saved['value'], saved['step'], saved['since']

    def see(self, step: int, scores: dict[str, float]) -> None:
        """Takes note of an evaluation; UserError if the metric is not among its scores."""
        if not self.metric:
            return
        if self.metric not in scores:
            raise UserError(
                f'best_metric={self.metric!r} is not among what evaluation gives: '
                f"{', '.join(scores) or None}. Name one of these, or '' to keep the latest checkpoints alone."
            )
        value = scores[self.metric]
        first = self.value is None
        if math.isfinite(value) and (first or cost(self.metric, value) < cost(self.metric, self.value)):
            self.value, self.step, self._since = value, step, 0
        else:
            self._since += 1

    @property
    def exhausted(self) -> bool:
        """Have there been config.early_stopping evaluations since the best?"""
        return 0 < self._patience <= self._since

    def as_json(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it."""
        return {'metric': self.metric, 'value': self.value, 'step': self.step, 'since': self._since}

    def __str__(self) -> str:
        """Says what was best, and how long ago."""
        if self.value is None:
            return f'{self.metric} was no number in {self._since} evaluations'
        best = f'{self.value:.4f} of step {self.step}'
        return f'{self.metric} is not better than {best} in {self._since} evaluations'
