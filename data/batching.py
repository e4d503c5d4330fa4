"""Texts in lists of a size that makes the overhead of a tokenizer's call small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

BATCH_CHARACTERS = 1 << 16


Text = TypeVar('Text', bound=Sized)  # a string, or what has as many characters as its len()


def in_batches(texts: Iterable[Text], characters: int = BATCH_CHARACTERS) -> Iterator[list[Text]]:
    """Yields `texts` in lists of at least `characters` characters, the last one excepted."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
