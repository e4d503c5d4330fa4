"""Whose turn it is: draws from several sources whose counts follow weights exactly, at every moment.

After n draws, Tᵢ(n) rows of source i are due: the sum of its weights in all draws, however these change on
the way. Its count is never further than 1 from that (the chairman assignment problem, Tijdeman 1980). Row t
of a source may be drawn once more than t − 1 are due, and has to be before more than t are; of the rows that
may be drawn, the one that has to be first is. Earliest deadline first meets all deadlines if anything does,
and these can be met (Baruah et al. 1996, "Proportionate progress").

K sources · P stages · n draws
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-6  # draws by which sums of shares may be off


@dataclass(frozen=True)
class Shares:
    """Stages of constant weights.

    starts: [P], draws before each stage, not always whole numbers; the first is 0.
    weights: [P][K], of sum 1. due: [P][K], the Tᵢ at the stages' starts.
    used_up: [K], draws after which a source has been drawn as often as it may be, or infinity.
    end: draws that can be made before all sources with a weight are used up, or infinity.
    """

    starts: list[float]
    weights: list[list[float]]
    due: list[list[float]]
    used_up: list[float]
    end: float

    def due_after(self, draws: float) -> np.ndarray:
        """Returns float64 [K], the Tᵢ after this many draws."""
        stage = bisect_right(self.starts, draws) - 1
        return np.array(self.due[stage]) + (draws - self.starts[stage]) * np.array(self.weights[stage])

    def draw(self, first: int, count: int, taken: Sequence[int]) -> np.ndarray:
        """Returns int64 [count], the sources of draws `first` … `first` + count − 1.

        taken: [K], how often each was drawn before; with `first` it is the whole state. Raises IndexError
        past `end`.
        """
        counts = list(taken)
        waiting = [(self._may_be_drawn(source, count), source) for source, count in enumerate(counts)]
        heapq.heapify(waiting)
        ready: list[tuple[float, int]] = []
        drawn = np.empty(count, np.int64)
        for draw in range(count):
            while waiting and waiting[0][0] < first + draw + 1:
                _, source = heapq.heappop(waiting)
                heapq.heappush(ready, (self._must_be_drawn(source, counts[source]), source))
            _, source = heapq.heappop(ready)
            drawn[draw] = source
            counts[source] += 1
            heapq.heappush(waiting, (self._may_be_drawn(source, counts[source]), source))
        return drawn

    def _may_be_drawn(self, source: int, taken: int) -> float:
        """Returns the last n at which no more than `taken` are due."""
        stage = bisect_right(self.due, taken, key=lambda due: due[source]) - 1
        return self._reaches(source, taken, stage)

    def _must_be_drawn(self, source: int, taken: int) -> float:
        """Returns the first n at which one more than `taken` is due."""
        stage = bisect_left(self.due, taken + 1, key=lambda due: due[source]) - 1
        return self._reaches(source, taken + 1, stage)

    def _reaches(self, source: int, amount: int, stage: int) -> float:
        weight = self.weights[stage][source]
        if weight == 0:
            return math.inf
        return self.starts[stage] + (amount - self.due[stage][source]) / weight


def make(stages: Sequence[tuple[int, Sequence[float]]], limits: Sequence[float]) -> Shares:
    """Returns the Shares of sources that may each be drawn `limits` times.

    A source that is used up gives its share to the others, in proportion to their weights.

    Args:
      stages: (draws before it, weights [K] in any unit), the first from 0.
      limits: [K], whole numbers or infinity.
    """
    due, used_up = [0.0] * len(limits), [math.inf] * len(limits)
    starts, weights, dues = [], [], []
    ends = [start for start, _ in stages[1:]] + [math.inf]
    for (at, given), end in zip(stages, ends, strict=True):
        while at < end:
            left = [limit - each for limit, each in zip(limits, due, strict=True)]
            opened = [weight if rows > 0 else 0.0 for weight, rows in zip(given, left, strict=True)]
            share = [weight / (sum(opened) or 1.0) for weight in opened]
            starts.append(float(at))
            weights.append(share)
            dues.append(due)
            if not sum(opened):
                return Shares(starts, weights, dues, used_up, math.floor(at + ROUNDING))
            lasts = [rows / each if each else math.inf for rows, each in zip(left, share, strict=True)]
            passed = min(end - at, *lasts)
            at += passed
            if at < math.inf:
                due = [each + passed * weight for each, weight in zip(due, share, strict=True)]
            for source, last in enumerate(lasts):
                if last == passed < math.inf:
                    due[source], used_up[source] = limits[source], at  # exactly, whatever rounding says
    return Shares(starts, weights, dues, used_up, math.inf)


def tempered(weights: Sequence[float], temperature: float) -> list[float]:
    """Returns weights to the power of 1 / temperature (Devlin et al. 2019; Raffel et al. 2020, 3.5.2).

    Rounded to 12 digits, for the last bit of a power is not the same on every machine.
    """
    return [float(f'{weight ** (1 / temperature):.12g}') for weight in weights]
