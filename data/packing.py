"""Documents to token ids: the step between reading and rows, the same in both modes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from data.sources import Document

BATCH_CHARACTERS = 1 << 16  # tokenised at a time: enough to make a call's overhead small


def in_batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    """Yields the texts of `documents` in lists of about BATCH_CHARACTERS characters."""
    batch, size = [], 0
    for document in documents:
        batch.append(document.text)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
