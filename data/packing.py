"""Documents to tokens as shards hold them: text without gaps or whole in rows, pairs in rows of two sides.

The layouts stand in data/manifest.py. A packer serves one split of one part of the source, so that
parts can be joined as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from configs.errors import choose
from data import best_fit, manifest
from data.documents import Document
from data.index import UNPLACED, Place
from data.tokenizer import Tokenizer

NOTHING = np.zeros(0, np.int32)
# Tokens that best-fit packing has before it at a time: 4 MiB, more than most parts of a source (docs/log.md).
BEST_FIT_TOKENS = 1 << 20


class Packer(Protocol):
    """Makes tokens of documents.

    counts: {'documents', 'bytes', 'tokens': of what was packed, without padding; 'cuts': borders of rows
    within documents, where they are known; 'left_out_…': pairs}.
    places: of the documents packed so far, in the tokens returned so far and yet to be returned.
    """

    counts: dict[str, int]
    places: list[Place]

    def add(self, documents: Sequence[Document]) -> np.ndarray:
        """Returns the int32 tokens [n] to write now, n ≥ 0."""
        ...

    def finish(self) -> np.ndarray:
        """Returns the int32 tokens [n] that were still held back."""
        ...


def packer(encoder: Tokenizer, config: ConfigDict) -> Packer:
    """Returns what packs the documents of `config` as data.packing says, with data.target_field pairs."""
    if config.data.target_field:
        return PairPacker(encoder, config)
    if choose('data.packing', config.data.packing, manifest.PACKINGS) == 'best_fit':
        return BestFitPacker(encoder, config.sequence_length + 1)
    return TextPacker(encoder)


def join(
    paths: Sequence[Path], joined: Path, encoder: Tokenizer, config: ConfigDict, dtype: str
) -> tuple[Sequence[Path], np.ndarray | None]:
    """Returns the files of tokens that, one after another, are the rows of all parts, and what has moved.

    paths: the parts' own. With best-fit packing `joined` is written from them, and is the only one: rows that
    a part's end left half empty are filled with those of other parts. Then int64 [rows] says where in it each
    row of the parts begins; else None.
    """
    if config.data.packing != 'best_fit':
        return paths, None
    width = config.sequence_length + 1
    some = max(1, BEST_FIT_TOKENS // width) * width

    def rows_of_parts() -> Iterator[np.ndarray]:
        for path in paths:
            tokens = np.memmap(path, dtype, 'r') if path.stat().st_size else np.zeros(0, dtype)
            for at in range(0, len(tokens), some):
                yield tokens[at : at + some].reshape(-1, width)

    ids = {'pad_id': encoder.pad_id, 'eos_id': encoder.eos_id, 'tokens_at_a_time': BEST_FIT_TOKENS}
    row_bytes = width * np.dtype(dtype).itemsize
    moved = np.zeros(sum(path.stat().st_size for path in paths) // row_bytes, np.int64)
    with open(joined, 'wb') as file:
        for rows, numbers, starts in best_fit.repack(rows_of_parts(), **ids):
            file.write(rows.astype(dtype).tobytes())
            moved[numbers] = starts
    return [joined], moved


class TextPacker:
    """Documents one after another, each with its begin and end symbol; a Packer."""

    def __init__(self, encoder: Tokenizer):
        self._encoder = encoder
        self.counts: dict[str, int] = dict.fromkeys(('documents', 'bytes', 'tokens'), 0)
        self.places: list[Place] = []

    def add(self, documents: Sequence[Document]) -> np.ndarray:
        """Returns the int32 tokens of the documents."""
        encoded = self._encoder.encode_documents([document.text for document in documents])
        start = self.counts['tokens']
        for document, ids in zip(documents, encoded, strict=True):
            place = Place(document.id, document.size(), start, len(ids))
            self.places.append(place)
            start += place.tokens
            self.counts['bytes'] += place.bytes
        self.counts['documents'] += len(documents)
        self.counts['tokens'] = start
        return np.concatenate([NOTHING, *encoded])

    def finish(self) -> np.ndarray:
        """Returns no tokens: nothing is held back."""
        return NOTHING


class BestFitPacker:
    """Whole documents side by side in rows of `width` tokens (data/best_fit.py); a Packer.

    Rows are made of BEST_FIT_TOKENS at a time, so that memory does not grow with the part.
    """

    def __init__(self, encoder: Tokenizer, width: int):
        self._encoder, self._width = encoder, width
        self._pieces: list[np.ndarray] = []
        self._held = self._rows = 0
        self._unplaced: list[Place] = []  # of the pieces
        self.counts: dict[str, int] = dict.fromkeys(('documents', 'bytes', 'tokens', 'cuts'), 0)
        self.places: list[Place] = []

    def add(self, documents: Sequence[Document]) -> np.ndarray:
        """Returns the int32 tokens of the rows made now."""
        rows = [NOTHING]
        encoded = self._encoder.encode_documents([document.text for document in documents])
        for document, ids in zip(documents, encoded, strict=True):
            pieces = best_fit.chunks(ids, self._width, self._encoder.bos_id)
            sizes = [document.size(), *[0] * (len(pieces) - 1)]
            for piece, size in zip(pieces, sizes, strict=True):
                self._unplaced.append(Place(document.id, size, UNPLACED, len(piece)))
            self._pieces += pieces
            self.counts['cuts'] += len(pieces) - 1
            self._held += sum(map(len, pieces))
            if self._held >= BEST_FIT_TOKENS:
                rows.append(self.finish())
        self.counts['documents'] += len(documents)
        self.counts['bytes'] += sum(document.size() for document in documents)
        return np.concatenate(rows)

    def finish(self) -> np.ndarray:
        """Returns the int32 tokens of the rows that hold what is left."""
        lengths = np.array([place.tokens for place in self._unplaced], np.int64)
        starts, count = best_fit.places(lengths, self._width)
        rows = best_fit.lay(self._pieces, starts, count, self._width, self._encoder.pad_id)
        starts += self._rows * self._width
        self.places += [
            place._replace(start=start) for place, start in zip(self._unplaced, starts.tolist(), strict=True)
        ]
        self.counts['tokens'] += self._held
        self._pieces, self._unplaced, self._held = [], [], 0
        self._rows += count
        return rows.reshape(-1)


class PairPacker:
    """Pairs in rows of S + L tokens, greedily and in their order; a Packer.

    A row is begun when the next pair's input or target has no room left in the one before. Left out
    are pairs of which one text is empty, too long for any row, or holds the end symbol, which would
    end it early.
    """

    def __init__(self, encoder: Tokenizer, config: ConfigDict):
        self._encoder = encoder
        self._room = np.array([config.sequence_length, manifest.target_length(config)])
        self._starts = np.array([0, config.sequence_length])
        self._rows_done = 0
        self._begin_row()
        self.places: list[Place] = []
        fields = ('documents', 'bytes', 'tokens', *(f'left_out_{reason}' for reason in manifest.LEFT_OUT))
        self.counts: dict[str, int] = dict.fromkeys(fields, 0)

    def add(self, documents: Sequence[Document]) -> np.ndarray:
        """Returns the int32 tokens of the rows that are full."""
        inputs = self._encoder.encode_batch([document.text for document in documents])
        targets = self._encoder.encode_batch([document.target for document in documents])
        rows = [NOTHING]
        for document, *pair in zip(documents, inputs, targets, strict=True):
            needed = np.array([len(ids) + 1 for ids in pair])
            if reason := self._unfit(document, pair, needed):
                self.counts[f'left_out_{reason}'] += 1
                continue
            if (self._filled + needed > self._room).any():
                rows.append(self.finish())
            for ids, start in zip(pair, self._starts + self._filled, strict=True):
                self._row[start : start + len(ids)] = ids
                self._row[start + len(ids)] = self._encoder.eos_id
            starts = (self._rows_done * len(self._row) + self._starts + self._filled).tolist()
            lengths = needed.tolist()
            self.places.append(
                Place(document.id, document.size(), starts[0], lengths[0], starts[1], lengths[1])
            )
            self._filled += needed
            self.counts['documents'] += 1
            self.counts['bytes'] += document.size()
            self.counts['tokens'] += int(needed.sum())
        return np.concatenate(rows)

    def finish(self) -> np.ndarray:
        """Returns the int32 tokens of the row that is not full, none if there is none."""
        row = self._row if self._filled.any() else NOTHING
        self._rows_done += len(row) > 0
        self._begin_row()
        return row

    def _begin_row(self) -> None:
        self._row = np.full(self._room.sum(), self._encoder.pad_id, np.int32)
        self._filled = np.zeros(2, int)

    def _unfit(self, document: Document, pair: Sequence[np.ndarray], needed: np.ndarray) -> str:
        """Returns why a pair is left out, a key of manifest.LEFT_OUT, or '' if it is not."""
        if document.text.isspace() or document.target.isspace() or needed.min() == 1:
            return 'empty'
        if any(self._encoder.eos_id in ids for ids in pair):
            return 'end_symbol'
        long_input, long_target = (needed > self._room).tolist()
        return 'long_input' if long_input else 'long_target' if long_target else ''
