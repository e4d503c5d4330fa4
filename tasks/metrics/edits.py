"""How well a text was corrected: its edits against those of the reference (as M², Dahlmeier and Ng 2012)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from tasks.metrics import bootstrap, squad
from tasks.metrics.bootstrap import Score

BETA = 0.5  # a wrong edit is worse than a missing one (Ng et al. 2014)


def edits(before: str, after: str) -> set[tuple[int, int, tuple[str, ...]]]:
    """Returns {(first word, end, what stands there instead)}; ideographs are words of their own."""
    old, new = _words(before), _words(after)
    found = set()
    for kind, start, end, at, to in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == 'replace' and end - start == to - at:  # word by word
            found |= {(start + n, start + n + 1, (new[at + n],)) for n in range(end - start)}
        elif kind != 'equal':
            found.add((start, end, tuple(new[at:to])))
    return found


def _words(text: str) -> list[str]:
    return squad.IDEOGRAPH.sub(r' \1 ', text).split()


def scores(sources: Sequence[str], answers: Sequence[str], references: Sequence[str]) -> dict[str, Score]:
    """Returns edit_precision, edit_recall and edit_f0.5 over all texts, in percent.

    Without any edits precision is 100, and without any to make recall is.
    """
    counts_N3 = np.array(
        [
            (len(made & due), len(made), len(due))
            for source, answer, reference in zip(sources, answers, references, strict=True)
            for made, due in [(edits(source, answer), edits(source, reference))]
        ]
    )

    def ratios(numbers: np.ndarray) -> tuple[float, float, float]:
        hits, made, due = counts_N3[numbers].sum(axis=0)
        precision, recall = hits / made if made else 1.0, hits / due if due else 1.0
        weighted = BETA**2 * precision + recall
        return precision, recall, (1 + BETA**2) * precision * recall / weighted if weighted else 0.0

    names = ('edit_precision', 'edit_recall', 'edit_f0.5')
    return {
        name: bootstrap.interval(lambda numbers, at=at: 100 * ratios(numbers)[at], len(counts_N3))
        for at, name in enumerate(names)
    }
