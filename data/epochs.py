"""Batches of rows that can be had by number: a new random order each epoch, or one pass in order.

Step s of training takes the rows s · B … s · B + B-1 of the endless sequence of shuffled epochs, so
the whole position is the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Protocol

import numpy as np

from data.permutation import permute
from data.tokenizer import Tokenizer

TOKENS_AT_A_TIME = 1 << 19  # rows of several steps are gathered together, which is faster than one by one


class RowSource(Sized, Protocol):
    """len() rows; an array of row numbers gives int32 [len(numbers), T + 1]."""

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray: ...


class EpochLoader:
    """A Loader (data/loader.py) of a RowSource.

    part: the rows of the global batch that this process gets; endless: shuffled epochs without
    end, seeded by `seed`, or else one pass in order whose last batch is filled with rows of `filler`
    (None: the tokenizer's pad).
    Position: int32 [R, 1], the step.
    """

    def __init__(
        self,
        rows: RowSource,
        *,
        tokenizer: Tokenizer,
        fingerprint: str,
        batch_size: int,
        part: slice,
        seed: int,
        endless: bool,
        filler: int | None = None,
    ):
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self._in_one_pass = -(-len(rows) // batch_size)
        self.num_batches: int | None = self._in_one_pass
        self.notes: list[str] = []
        self.rows, self._seed, self._endless = rows, seed, endless
        self._batch_size = batch_size
        self._mine = np.arange(batch_size)[part]
        self._filler = tokenizer.pad_id if filler is None else filler

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch, int32 [R, 1]."""
        return np.zeros((len(self._mine), 1), np.int32)

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (int32 [R, T + 1], position after it) from `position` on."""
        step = int(position[0, 0])
        at_a_time = steps_at_a_time(self.rows, len(self._mine))
        while self._endless or step < self._in_one_pass:
            steps = step + np.arange(at_a_time)
            if not self._endless:
                steps = steps[steps < self._in_one_pass]
            numbers = steps[:, None] * self._batch_size + self._mine
            for rows in self.gather(numbers):
                step += 1
                yield rows, np.full((len(self._mine), 1), step, np.int32)

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the rows at `numbers` of the sequence of epochs, int32 [..., T + 1] for numbers [...]."""
        total = len(self.rows)
        shape, numbers = numbers.shape, numbers.reshape(-1)
        if not self._endless:
            rows = self.rows[np.minimum(numbers, total - 1)]
            rows[numbers >= total] = self._filler
        else:
            epochs, within = np.divmod(numbers, total)
            for epoch in np.unique(epochs):
                of_epoch = epochs == epoch
                within[of_epoch] = permute(within[of_epoch], total, ('epoch', self._seed, int(epoch)))
            rows = self.rows[within]
        return rows.reshape(*shape, rows.shape[1])


def steps_at_a_time(rows: RowSource, of_a_step: int) -> int:
    """Returns for how many steps rows are gathered together."""
    width = rows[np.zeros(1, np.int64)].shape[1]
    return max(1, TOKENS_AT_A_TIME // (of_a_step * width))
