"""Rows of labelled examples: several side by side, each a segment of its own.

In all of them 0 is: nothing there; so that a row of zeros is one without examples.

T tokens of an example · A numbers of an answer
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

OPEN_ROWS = 64  # rows that are filled at the same time


class Example(Protocol):
    """What is laid out (tasks/framing.py)."""

    @property
    def tokens_T(self) -> np.ndarray:
        """What is read, int32 [T]."""
        ...

    @property
    def marks_T(self) -> np.ndarray:
        """0 or 1 for each token, int32 [T]."""
        ...

    @property
    def answer(self) -> np.ndarray:
        """Numbers that are to be answered, int32 [A]."""
        ...


class Row(NamedTuple):
    """How much a row has room for: tokens, numbers of answers (0: they are among the tokens), examples."""

    tokens: int
    answers: int
    examples: int


def pack(examples: Iterable[tuple[int, Example]], room: Row) -> Iterator[list[int]]:
    """Yields the numbers of the examples of each row.

    Each example goes to the fullest of OPEN_ROWS in which it fits; the fullest is closed when none does.
    """
    rows: list[tuple[int, int, list[int]]] = []  # tokens and numbers of answers left, examples
    for number, example in examples:
        tokens, answers = len(example.tokens_T), len(example.answer) if room.answers else 0
        fits = [
            at for at, (left, left_answers, inside) in enumerate(rows)
            if tokens <= left and answers <= left_answers and len(inside) < room.examples
        ]  # fmt: skip
        if fits:
            at = min(fits, key=lambda at: rows[at][0])
            left, left_answers, inside = rows[at]
            rows[at] = (left - tokens, left_answers - answers, [*inside, number])
            continue
        if len(rows) == OPEN_ROWS:
            fullest = min(range(len(rows)), key=lambda at: rows[at][0])
            yield rows.pop(fullest)[2]
        rows.append((room.tokens - tokens, room.answers - answers, [number]))
    yield from (inside for _, _, inside in rows)


def place(examples: Sequence[Example], size: int) -> np.ndarray:
    """Returns the examples' tokens one after another, int32 [size]."""
    tokens = np.zeros(size, np.int32)
    joined = np.concatenate([example.tokens_T for example in examples])
    tokens[: len(joined)] = joined
    return tokens


def codes(examples: Sequence[Example], size: int) -> np.ndarray:
    """Returns 2 · segment + mark of each token, int32 [size]; segments count from 1."""
    result = np.zeros(size, np.int32)
    joined = np.concatenate([2 * segment + example.marks_T for segment, example in enumerate(examples, 1)])
    result[: len(joined)] = joined
    return result
