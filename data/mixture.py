"""Several sources as one: batches whose rows are drawn from each in exact shares (data/shares.py).

Which source a row is from depends on weights, step and row alone; what that row is, on how many were drawn
from the source before. So a position holds, beside the step, the number of rows drawn from each source:
the batches after it are those of an uninterrupted run, on any number of processes.

B rows of a batch · R of them on this process · K sources · T tokens in a row
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.errors import UserError
from configs.experiment import as_tuples
from data import manifest, mirror, shares
from data.epochs import EpochLoader, steps_at_a_time
from data.permutation import permute
from data.shares import Shares
from data.stream import StreamLoader, prepared_tokenizer
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer


def members(config: ConfigDict) -> dict[str, ConfigDict]:
    """Returns {name: the experiment with that source alone}; without a mixture {'': config}.

    Raises UserError for prepared sources that are not there, are damaged, or do not share a tokenizer.
    """
    mixture = config.data.mixture
    if not mixture.names:
        return {'': config}
    alone = {}
    for name, source in zip(mixture.names, mixture.sources, strict=True):
        alone[name] = config.copy_and_resolve_references()
        alone[name].data.mixture.names = ()
        if config.data.mode == 'stream':
            alone[name].data.source = source
            alone[name].data.shuffle_bytes = max(1, config.data.shuffle_bytes // len(mixture.names))
        else:
            alone[name].data.path = source
    if config.data.mode == 'shards':
        _share_tokenizer(alone)
    return alone


def _share_tokenizer(alone: Mapping[str, ConfigDict]) -> None:
    """Lets each source be what it was prepared with; UserError if that was not the same tokenizer for all."""
    found = {name: manifest.find(config.data.path) for name, config in alone.items()}
    first, *others = found
    for name in others:
        if found[name]['tokenizer'] != found[first]['tokenizer']:
            raise UserError(
                f'data.mixture: {alone[name].data.path} ({name}) has tokenizer '
                f'{found[name]["tokenizer"][:12]}… and {alone[first].data.path} ({first}) has '
                f'{found[first]["tokenizer"][:12]}…; a model has one. Prepare the one again, in another '
                f'data.path, with --config.tokenizer.path={alone[first].data.path}/tokenizer.'
            )
    for name, config in alone.items():
        for key in manifest.TOKENIZER_KEYS:
            value = {**manifest.BEFORE, **found[name]['config']}[key]
            config.tokenizer[key.removeprefix('tokenizer.')] = as_tuples(value)


def whole(config: ConfigDict) -> ConfigDict:
    """Returns the experiment with all texts of a streamed mixture as one source, which a tokenizer learns.

    Raises UserError for a mixture of prepared sources, each of which is prepared by itself.
    """
    mixture = config.data.mixture
    if not mixture.names:
        return config
    if config.data.mode == 'shards':
        raise UserError(
            f'data.mixture draws from directories that are prepared already, {", ".join(mixture.sources)}. '
            'Run prepare.py for each of them, with its data.source and data.path and data.mixture.names=().'
        )
    config = config.copy_and_resolve_references()
    config.data.source = ','.join(mixture.sources)
    config.data.mixture.names = ()
    return config


def shared_tokenizer(config: ConfigDict) -> Tokenizer | None:
    """Returns the tokenizer of all sources of a mixture; None without one."""
    if not config.data.mixture.names:
        return None
    if config.data.mode == 'stream':
        return prepared_tokenizer(whole(config))
    return load_tokenizer(mirror.local(config.data.mixture.sources[0]) / 'tokenizer')


def mix(
    config: ConfigDict, loaders: Mapping[str, EpochLoader | StreamLoader], part: slice
) -> ShardMixture | StreamMixture:
    """Returns the Loader (data/loader.py) of training batches drawn from `loaders`.

    part: the rows of the global batch that this process needs. Raises UserError if sources that may only be
    read a number of times hold too few rows for num_steps.
    """
    drawn = _shares(config, loaders)
    deciding = {
        'sources': [[name, loader.fingerprint] for name, loader in loaders.items()],
        'shares': [drawn.starts, drawn.weights],
    }
    fingerprint = manifest.fingerprint(deciding)
    notes = _notes(config, loaders, drawn)
    kind = StreamMixture if config.data.mode == 'stream' else ShardMixture
    return kind(config, [*loaders.values()], drawn, fingerprint=fingerprint, part=part, notes=notes)


def _shares(config: ConfigDict, loaders: Mapping[str, EpochLoader | StreamLoader]) -> Shares:
    mixture, batch_size = config.data.mixture, config.batch_size
    rows = [len(loader.rows) if isinstance(loader, EpochLoader) else math.inf for loader in loaders.values()]
    epochs = mixture.epochs or (0,) * len(rows)
    limits = [
        math.floor(size * times) if times else math.inf for size, times in zip(rows, epochs, strict=True)
    ]
    stages = [(0, mixture.weights or rows)]
    stages += [(steps * batch_size, weights) for steps, *weights in mixture.curriculum]
    tempered = [(start, shares.tempered(weights, mixture.temperature)) for start, weights in stages]
    drawn = shares.make(tempered, limits)
    if drawn.end < config.num_steps * batch_size:
        raise UserError(
            f'data.mixture is used up after step {int(drawn.end) // batch_size} of num_steps='
            f'{config.num_steps}: data.mixture.epochs={tuple(mixture.epochs)} of {rows} rows, by the weights '
            'of that step. Train for fewer steps, or allow more epochs (0: any number).'
        )
    return drawn


def _notes(config: ConfigDict, loaders: Mapping[str, EpochLoader | StreamLoader], drawn: Shares) -> list[str]:
    """Returns a line a source: how much of the run it is, and how often it is read."""
    total = config.num_steps * config.batch_size
    lines = []
    for source, (name, loader) in enumerate(loaders.items()):
        due = drawn.due_after(total)[source]
        line = f'{name}: {due / total:.2%} of all rows'
        if isinstance(loader, EpochLoader):
            line += f', {due / len(loader.rows):.2f} epochs of {len(loader.rows):,}'
        if drawn.used_up[source] < total:
            line += f', used up in step {math.ceil(drawn.used_up[source] / config.batch_size)}'
        lines.append(line)
    return lines


class Mixture:
    """What mixtures of both kinds have; `sources` are loaders of the same batch size and part."""

    num_batches: int | None = None

    def __init__(
        self,
        config: ConfigDict,
        sources: list[Any],
        drawn: Shares,
        *,
        fingerprint: str,
        part: slice,
        notes: list[str],
    ):
        self.tokenizer: Tokenizer = sources[0].tokenizer
        self.fingerprint, self.notes = fingerprint, notes
        self._seed, self._batch_size = config.seed, config.batch_size
        self._sources, self._shares = sources, drawn
        self._mine = np.arange(config.batch_size)[part]


class ShardMixture(Mixture):
    """Training batches from prepared sources, a Loader; each source in shuffled epochs of its own.

    Position: int32 [R, 1 + K], the step, and the rows drawn from each source before it.
    """

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch, int32 [R, 1 + K]."""
        return np.zeros((len(self._mine), 1 + len(self._sources)), np.int32)

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (int32 [R, T + 1], position after it) from `position` on, until all sources are used up."""
        step, *taken = position[0].tolist()
        at_a_time = steps_at_a_time(self._sources[0].rows, len(self._mine))
        while (steps := int(min(at_a_time, self._shares.end / self._batch_size - step))) > 0:
            size = steps * self._batch_size
            sources = self._shares.draw(step * self._batch_size, size, taken)
            after_NK = taken + np.cumsum(sources[:, None] == np.arange(len(self._sources)), axis=0)
            numbers = np.take_along_axis(after_NK, sources[:, None], axis=1)[:, 0] - 1
            rows = self._gather(
                sources.reshape(steps, -1)[:, self._mine], numbers.reshape(steps, -1)[:, self._mine]
            )
            counts = after_NK[self._batch_size - 1 :: self._batch_size]
            for rows_RT, count_K in zip(rows, counts, strict=True):
                step += 1
                after = np.concatenate([[step], count_K]).astype(np.int32)
                yield rows_RT, np.tile(after, (len(self._mine), 1))
            taken = counts[-1].tolist()

    def _gather(self, sources: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Returns int32 [..., T + 1]: of each source its row at that number of its shuffled epochs."""
        pieces = [(sources == source, loader) for source, loader in enumerate(self._sources)]
        rows = [(at, loader.gather(numbers[at])) for at, loader in pieces]
        gathered = np.empty((*sources.shape, rows[0][1].shape[1]), np.int32)
        for at, of_source in rows:
            gathered[at] = of_source
        return gathered


class StreamMixture(Mixture):
    """Training batches straight from the texts of several sources, a Loader.

    Every row of the global batch has a lane (data/stream.py) in each source, and is read from one of them.
    Which rows those of a source are is shuffled each step, so that no lane of it is forgotten.

    Position: int32 [R, 1 + K + 3 K], the step, the rows drawn from each source before it, and the positions
    of the row's lanes.
    """

    def initial_position(self) -> np.ndarray:
        """Returns the position before the first batch, int32 [R, 1 + 4 K]."""
        return np.zeros((len(self._mine), 1 + 4 * len(self._sources)), np.int32)

    def batches(self, position: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (int32 [R, T + 1], position after it) from `position` on."""
        after = position.copy()
        places_RK3 = after[:, 1 + len(self._sources) :].reshape(len(self._mine), len(self._sources), 3)
        lanes = {}
        while True:
            step, *taken = after[0, : 1 + len(self._sources)].tolist()
            sources = self._shares.draw(step * self._batch_size, self._batch_size, taken)
            shuffled = permute(np.arange(self._batch_size), self._batch_size, ('mixture', self._seed, step))
            rows = []
            for row, source in enumerate(sources[shuffled][self._mine].tolist()):
                if (row, source) not in lanes:
                    place = places_RK3[row, source].tolist()
                    lanes[row, source] = self._sources[source].lane(int(self._mine[row]), place)
                rows.append(lanes[row, source].read())
                places_RK3[row, source] = lanes[row, source].position()
            after[:, 0] += 1
            after[:, 1 : 1 + len(self._sources)] += np.bincount(sources, minlength=len(self._sources))
            yield np.stack(rows), after.copy()
