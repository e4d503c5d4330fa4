"""Documents to tokens as shards hold them: plain text without gaps, pairs in rows of inputs and targets.

The layouts stand in data/manifest.py. A packer serves one split of one part of the source, so that
parts can be joined as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from data import manifest
from data.documents import Document
from data.index import Place
from data.tokenizer import Tokenizer

NOTHING = np.zeros(0, np.int32)


class Packer(Protocol):
    """Makes tokens of documents.

    counts: {'documents', 'bytes', 'tokens': of what was packed, without padding; 'left_out_…': pairs}.
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
    """Returns what packs the documents of `config`, with data.target_field pairs."""
    return PairPacker(encoder, config) if config.data.target_field else TextPacker(encoder)


class TextPacker:
    """Documents one after another, each with its begin and end symbol; a Packer."""

    def __init__(self, encoder: Tokenizer):
        self._encoder = encoder
        self.counts: dict[str, int] = dict.fromkeys(('documents', 'bytes', 'tokens'), 0)
        self.places: list[Place] = []

    def add(self, documents: Sequence[Document]) -> np.ndarray:
        """Returns the int32 tokens of the documents."""
        encoded = self._encoder.encode_documents([document.text for document in documents])
        tokens = np.concatenate([NOTHING, *encoded])
        ends = self.counts['tokens'] + np.cumsum([len(ids) for ids in encoded])
        for document, ids, end in zip(documents, encoded, ends.tolist(), strict=True):
            self.places.append(Place(document.id, document.size(), end - len(ids), len(ids)))
        self.counts['documents'] += len(documents)
        self.counts['bytes'] += sum(document.size() for document in documents)
        self.counts['tokens'] += len(tokens)
        return tokens

    def finish(self) -> np.ndarray:
        """Returns no tokens: nothing is held back."""
        return NOTHING


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
