"""Batches straight from raw text, tokenised on the way.

Each row of the global batch is a *lane*: an endless stream of tokens of its own, cut into rows
that share one token with the next, as in shards; or, with data.packing='best_fit', rows of whole
documents, packed some windows at a time. The splits of the source (data/sources.py) are
shuffled anew each epoch, and of that endless sequence lane r of B reads numbers r, r + B, r + 2B, …:
every split is read once in an epoch, by one lane. Within a split, training documents are shuffled
in windows of data.shuffle_bytes. All orders are functions of the seed and of numbers in the
position, so a lane can start at any document; what it holds in memory is one window.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from ml_collections import ConfigDict

from configs.errors import UserError
from data import best_fit, manifest, mirror, packing, sources
from data.batching import in_batches
from data.epochs import EpochLoader
from data.permutation import permute
from data.reading import read_clean
from data.sources import SPLIT_BYTES, Split
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer

BARREN = 32  # epochs without a document after which a lane gives up


def load(
    config: ConfigDict, split: str, part: slice, tokenizer: Tokenizer | None
) -> StreamLoader | EpochLoader:
    """Returns the Loader (data/loader.py) of `split` for the rows `part` of the global batch."""
    tokenizer = tokenizer or prepared_tokenizer(config)
    files = sources.find_files(config)
    keys = ('seed', 'batch_size', 'sequence_length', 'data.shuffle_bytes', 'data.packing')
    deciding = (
        manifest.select(config, keys)
        | manifest.beyond_before(manifest.reading(config))
        | {'tokenizer': tokenizer.fingerprint, 'split': split}
    )
    deciding |= {'text': sources.describe(files)} | manifest.lists(config, sources.describe)
    fingerprint = manifest.fingerprint(deciding)
    if split == 'train':
        splits = list_splits(files, config)
        return StreamLoader(config, splits, tokenizer=tokenizer, fingerprint=fingerprint, part=part)
    return EpochLoader(
        held_out_rows(config, files, tokenizer),
        tokenizer=tokenizer,
        fingerprint=fingerprint,
        batch_size=config.batch_size,
        part=part,
        seed=config.seed,
        endless=False,
    )


def prepared_tokenizer(config: ConfigDict) -> Tokenizer:
    """Returns the tokenizer in data.path or, if there is none, in tokenizer.path.

    Raises UserError if it was prepared for another text, or otherwise than the config says.
    """
    directory = mirror.prepared(config.data.path)
    record = manifest.read(directory / 'preparation.json')
    if record is None and config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    if record:
        wanted = manifest.select(config, ('data.source', *manifest.TOKENIZER_KEYS)) | manifest.reading(config)
        manifest.refuse_difference(config.data.path, record['config'], wanted)
    return load_tokenizer(directory / 'tokenizer')


def list_splits(files: list[str], config: ConfigDict) -> list[Split]:
    """Returns the splits that lanes read: at least as many as lanes, so that none shares one."""
    sizes = {path: sources.text_size(path) for path in files}
    share = -(-sum(sizes.values()) // config.batch_size)
    splits = []
    for path, size in sizes.items():
        splits += sources.list_splits(
            [path], config, split_bytes=min(share, SPLIT_BYTES), parts=-(-size // share)
        )
    return splits


def held_out_rows(config: ConfigDict, files: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """Returns int32 [N, sequence_length + 1]: the held-out documents in the order of the source.

    The first config.eval_batches batches of them, or all for 0; the last row is filled up with pad.
    """
    width, stride = manifest.row_layout(config.sequence_length, 0, config.data.packing)
    most = config.eval_batches * config.batch_size or sys.maxsize
    packer = packing.packer(tokenizer, config)
    pieces, total = [], 0
    for split in sources.list_splits(files, config):
        held_out = (
            document
            for document in read_clean(split, config)
            if sources.is_held_out(document.text, config.data.eval_fraction)
        )
        for batch in in_batches(held_out, characters=1 << 12):
            pieces.append(packer.add(batch))
            total += len(pieces[-1])
            if total > most * stride:
                break
        else:
            pieces.append(packer.finish())
            total += len(pieces[-1])
        if total > most * stride:
            break
    if not total:
        raise UserError(
            f'data.source={config.data.source!r}: none of its documents was held out for evaluation. Raise '
            f'data.eval_fraction={config.data.eval_fraction}, or set eval_every=0.'
        )
    shared = width - stride
    rows = min(most, -(-(total - shared) // stride))
    tokens = np.full(rows * stride + shared, tokenizer.pad_id, np.int32)
    found = np.concatenate(pieces)[: len(tokens)]
    tokens[: len(found)] = found
    return np.lib.stride_tricks.sliding_window_view(tokens, width)[::stride]


class StreamLoader:
    """Endless training batches, a Loader (data/loader.py).

    Position: int32 [R, 3], for each lane the place of the next row, as its position() says.
    """

    def __init__(
        self, config: ConfigDict, splits: list[Split], *, tokenizer: Tokenizer, fingerprint: str, part: slice
    ):
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.num_batches: int | None = None
        self.notes: list[str] = []
        self._config, self._splits = config, splits
        self._lanes = range(config.batch_size)[part]

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch, int32 [R, 3]."""
        return np.zeros((len(self._lanes), 3), np.int32)

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (int32 [R, T + 1], position after it) from `position` on."""
        lanes = [self.lane(number, at) for number, at in zip(self._lanes, position.tolist(), strict=True)]
        while True:
            rows = np.stack([lane.read() for lane in lanes])
            yield rows, np.array([lane.position() for lane in lanes], np.int32)

    def lane(self, number: int, position: list[int]) -> Lane | BestFitLane:
        """Returns lane `number` of the global batch, about to read the row at `position`."""
        windows, length = Windows(number, self._config, self._splits), self._config.sequence_length
        if self._config.data.packing == 'best_fit':
            shuffle_bytes = self._config.data.shuffle_bytes
            return BestFitLane(windows, position, length, self.tokenizer, shuffle_bytes)
        return Lane(windows, position, length, self.tokenizer)


@dataclass
class Window:
    """Documents of one split in the order in which they are learnt; the first is number `first`."""

    epoch: int
    counter: int
    first: int
    texts: list[str]


class Windows:
    """The training documents of one lane, in shuffled windows."""

    def __init__(self, number: int, config: ConfigDict, splits: list[Split]):
        self._number, self._config, self._splits = number, config, splits

    def read(self, counter: int) -> Iterator[Window]:
        """Yields the windows of this lane's splits from its split number `counter` on, without end."""
        config, number_of_splits = self._config, len(self._splits)
        barren = 0
        while True:
            epoch, within = divmod(counter * config.batch_size + self._number, number_of_splits)
            split = int(permute(within, number_of_splits, ('splits', config.seed, epoch)))
            first = 0
            for number, texts in enumerate(self._unshuffled(self._splits[split])):
                seed = ('documents', config.seed, epoch, split, number)
                order = permute(np.arange(len(texts)), len(texts), seed)
                yield Window(epoch, counter, first, [texts[i] for i in order])
                first += len(texts)
            barren = 0 if first else barren + 1
            if barren > BARREN * number_of_splits:
                raise UserError(
                    f'data.source={config.data.source!r} holds no document to train on. Add text, or lower '
                    f'data.eval_fraction={config.data.eval_fraction}.'
                )
            counter += 1

    def _unshuffled(self, split: Split) -> Iterator[list[str]]:
        fraction = self._config.data.eval_fraction
        documents = read_clean(split, self._config)
        texts = (document.text for document in documents if not sources.is_held_out(document.text, fraction))
        return in_batches(texts, characters=self._config.data.shuffle_bytes)


class Lane:
    """The rows of one lane from `position` on: its documents one after another, without gaps."""

    def __init__(self, windows: Windows, position: list[int], length: int, tokenizer: Tokenizer):
        self._windows, self._length = windows, length
        counter, document, offset = position
        self._documents = self._tokenise(counter, document, tokenizer)
        # Tokens not yet read, from `_cursor` on, and of each document in them its start and its place.
        self._tokens = np.zeros(0, np.int32)
        self._starts, self._places = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        self._cursor = 0
        self._fill(offset + 1)
        self._cursor = offset

    def read(self) -> np.ndarray:
        """Returns the next length + 1 tokens and moves on by `length`."""
        self._fill(self._length + 1)
        row = self._tokens[self._cursor : self._cursor + self._length + 1]
        self._cursor += self._length
        return row

    def position(self) -> tuple[int, int, int]:
        """Returns where the next row's first token stands: (splits, documents, tokens) before it."""
        at = self._current()
        counter, document = self._places[at].tolist()
        return counter, document, self._cursor - int(self._starts[at])

    def _current(self) -> int:
        return int(np.searchsorted(self._starts, self._cursor, side='right')) - 1

    def _fill(self, count: int) -> None:
        """Holds at least `count` tokens from the cursor on."""
        if len(self._tokens) - self._cursor >= count:
            return
        at = max(0, self._current())
        dropped = int(self._starts[at]) if len(self._starts) else 0
        tokens, places = [self._tokens[dropped:]], [self._places[at:]]
        lengths = [np.diff(self._starts[at:], append=len(self._tokens))]
        self._cursor -= dropped
        held = len(tokens[0])
        while held - self._cursor < count:
            counter, first, encoded = next(self._documents)
            lengths.append(np.array([len(ids) for ids in encoded]))
            places.append(np.stack([np.full(len(encoded), counter), first + np.arange(len(encoded))], axis=1))
            tokens += encoded
            held += int(lengths[-1].sum())
        self._tokens = np.concatenate(tokens)
        lengths_D = np.concatenate(lengths)
        self._starts = np.cumsum(lengths_D) - lengths_D
        self._places = np.concatenate(places)

    def _tokenise(
        self, counter: int, skipped: int, tokenizer: Tokenizer
    ) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Yields (split counter, number of the first document, token ids of some documents)."""
        for window in self._windows.read(counter):
            if window.counter == counter and window.first < skipped:
                keep = skipped - window.first
                window = replace(window, first=skipped, texts=window.texts[keep:])
            if window.texts:
                first = window.first
                for batch in in_batches(window.texts):
                    yield window.counter, first, tokenizer.encode_documents(batch)
                    first += len(batch)


class BestFitLane:
    """The rows of one lane from `position` on: whole documents, packed about shuffle_bytes at a time.

    Packed together are windows of one epoch, of as many splits as it takes where these are small.
    """

    def __init__(
        self,
        windows: Windows,
        position: list[int],
        length: int,
        tokenizer: Tokenizer,
        shuffle_bytes: int,
    ):
        counter, document, self._row = position
        self._windows, self._enough = windows.read(counter), shuffle_bytes
        self._tokenizer, self._width = tokenizer, length + 1
        self._next = next(self._windows)
        while (self._next.counter, self._next.first) < (counter, document):
            self._next = next(self._windows)
        self._pack()

    def read(self) -> np.ndarray:
        """Returns the next row, length + 1 tokens."""
        row = self._rows[self._row]
        self._row += 1
        if self._row == len(self._rows):
            self._row = 0
            self._pack()
        return row

    def position(self) -> tuple[int, int, int]:
        """Returns the place of the next row.

        It is (splits, documents of a split) before the first window packed with it, and rows before it of
        those that were packed together.
        """
        return self._first.counter, self._first.first, self._row

    def _pack(self) -> None:
        self._first, texts, size = self._next, [], 0
        while self._next.epoch == self._first.epoch and size < self._enough:
            texts += self._next.texts
            size += sum(map(len, self._next.texts))
            self._next = next(self._windows)
        encoded = self._tokenizer.encode_documents(texts)
        bos_id, pad_id = self._tokenizer.bos_id, self._tokenizer.pad_id
        pieces = [piece for ids in encoded for piece in best_fit.chunks(ids, self._width, bos_id)]
        self._rows = best_fit.pack(pieces, self._width, pad_id)
