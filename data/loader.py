"""Batches of token rows for training and evaluation, from shards or from raw text.

Everything the global batch of step s depends on is in the data, the config and s: any number of
processes, each asking for its own rows, get parts of the same batch, and a restart from a
position goes on with exactly the batches that would have followed.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from configs.errors import UserError, choose
from data import cooccurrences, manifest, mirror, mixture, shards, stream
from data.epochs import EpochLoader
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer

PREFETCHED = 4  # batches made ahead of the consumer


class Loader(Protocol):
    """What load() returns.

    tokenizer; fingerprint: SHA-256 (hex) of all that decides the batches; num_batches: in one
    pass, None when not known; notes: lines that tell a person what is drawn.
    """

    tokenizer: Tokenizer
    fingerprint: str
    num_batches: int | None
    notes: list[str]

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch: int32 [R, P], R rows of this process."""
        ...

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (rows int32 [R, T + 1], position int32 [R, P] after them).

        T is sequence_length, of pairs sequence_length + target_length, and of co-occurrences
        3 · sequence_length; data/manifest.py and data/cooccurrences.py say how a row holds them.
        Row r of a position belongs to row r of the batch, whichever process holds it.
        """
        ...


def load(
    config: ConfigDict,
    *,
    split: str,
    rows: slice | None = None,
    tokenizer: Tokenizer | None = None,
) -> Loader:
    """Returns the batches of `split`: 'train', endless and shuffled anew each epoch, or 'eval', one pass.

    Those of a mixture (data.mixture) are for training; `held_out` gives its evaluation, source by source.

    rows: the rows of the global batch that this process needs, all by default. tokenizer: the one
    the data must have been prepared with (shards) or is to be encoded with (stream); default: the
    one in config.data.path. Raises UserError for data that is unfinished, damaged, or prepared
    otherwise than the config says.
    """
    part = rows if rows is not None else slice(0, config.batch_size)
    return Prefetched(load_unbuffered(config, split, part, tokenizer))


def held_out(
    config: ConfigDict, *, rows: slice | None = None, tokenizer: Tokenizer | None = None
) -> dict[str, Loader]:
    """Returns {name of a source: its held-out batches}, one pass; the name is '' without data.mixture."""
    alone = mixture.members(config)
    tokenizer = tokenizer or mixture.shared_tokenizer(config)
    return {
        name: load(member, split='eval', rows=rows, tokenizer=tokenizer) for name, member in alone.items()
    }


def load_unbuffered(
    config: ConfigDict, split: str, part: slice, tokenizer: Tokenizer | None = None
) -> Loader:
    """Returns what load() does, but makes each batch when it is asked for, without a thread."""
    choose('split', split, ('train',) if config.data.mixture.names else ('train', 'eval'))
    choose('data.mode', config.data.mode, ('shards', 'stream'))
    kind = stream.load if config.data.mode == 'stream' else _load_shards
    if not config.data.mixture.names:
        return kind(config, split, part, tokenizer)
    alone = mixture.members(config)
    tokenizer = tokenizer or mixture.shared_tokenizer(config)
    return mixture.mix(config, {name: kind(alone[name], split, part, tokenizer) for name in alone}, part)


def _load_shards(config: ConfigDict, split: str, part: slice, tokenizer: Tokenizer | None) -> EpochLoader:
    prepared = manifest.load(config)
    directory, path = mirror.local(config.data.path), config.data.path
    if tokenizer is None:
        tokenizer = load_tokenizer(directory / 'tokenizer')
    if tokenizer.fingerprint != prepared['tokenizer']:
        raise UserError(
            f'{path} was prepared with another tokenizer (fingerprint {prepared["tokenizer"][:12]}…, '
            f'here {tokenizer.fingerprint[:12]}…). Prepare the text with this one: '
            '--config.tokenizer.path=RUN/tokenizer and another data.path.'
        )
    width, stride = manifest.layout(prepared)
    described, dtype = prepared[split], prepared['dtype']
    if config.data.cooccurrence_window:
        if split == 'eval':
            raise UserError('co-occurrences are counted in training text alone; set eval_every=0.')
        described, dtype = prepared['cooccurrences'], cooccurrences.DTYPE
        width, stride = cooccurrences.layout(prepared['sequence_length'])
    if not described['rows']:
        reason = (
            'no two of its words stand near each other. Add text'
            if config.data.cooccurrence_window
            else 'none of its documents was held out. Raise data.eval_fraction'
        )
        raise UserError(
            f'{path} holds no rows of split {split!r}: {reason} and prepare again with another '
            'data.path, or set eval_every=0.'
        )
    shards.check(path, described['shards'])
    deciding = {'manifest': manifest.fingerprint(prepared), 'split': split, 'batch_size': config.batch_size}
    return EpochLoader(
        shards.Rows(directory, described['shards'], width=width, stride=stride, dtype=dtype),
        tokenizer=tokenizer,
        fingerprint=manifest.fingerprint(deciding | {'seed': config.seed}),
        batch_size=config.batch_size,
        part=part,
        seed=config.seed,
        endless=split == 'train',
    )


class Prefetched:
    """A Loader whose batches are made in a thread, up to PREFETCHED of them ahead."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self.tokenizer = loader.tokenizer
        self.fingerprint = loader.fingerprint
        self.num_batches = loader.num_batches
        self.notes = loader.notes

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch, int32 [R, P]."""
        return self._loader.initial_position()

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields what the loader within yields; its errors are raised here, closing stops the thread."""
        ready: queue.Queue = queue.Queue(PREFETCHED)
        stopped = threading.Event()

        def put(item: tuple) -> None:
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def work() -> None:
            try:
                for batch in self._loader.batches(position):
                    put((batch, None))
                    if stopped.is_set():
                        return
                put((None, None))
            except BaseException as error:
                put((None, error))

        thread = threading.Thread(target=work, name='prefetch', daemon=True)
        thread.start()
        try:
            while True:
                batch, error = ready.get()
                if error is not None:
                    raise error
                if batch is None:
                    return
                yield batch
        finally:
            stopped.set()
            thread.join()
