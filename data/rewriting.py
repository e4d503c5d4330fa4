"""The tokens of a split written anew without some documents, and where the others stand then.

What is left of text without gaps is, byte for byte, what the same tokenizer would have made of a source
without the documents. Rows of pairs, and rows of whole documents packed by best fit, keep what else is in
them, closed up, with more padding behind it; rows that are empty then are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from data import index, manifest

if TYPE_CHECKING:
    import pyarrow

TOKENS_AT_A_TIME = 1 << 22


def write(
    file: BinaryIO, directory: Path, prepared: dict, old: dict, lost: list[index.Place]
) -> Iterator[pyarrow.Table]:
    """Writes the tokens of the split `old` of a manifest without those at the places `lost`.

    Yields the places of what is left, and has written all when it ends.
    """
    width, stride = manifest.layout(prepared)
    rows = _Flat(directory, old['shards'], stride, prepared['dtype'])
    tables = partial(index.read, directory / old['index']['file'])
    holes = _Holes(lost)
    if prepared['target_length']:
        return _write_rows(file, rows, prepared, tables(), {place.id for place in lost})
    if stride == width:
        return _write_packed(file, rows, prepared, old, tables, holes)
    return _write_text(file, rows, old['tokens'], tables(), holes)


class _Flat:
    """The tokens of a split's shards as one sequence; the one that neighbours share is there once."""

    def __init__(self, directory: Path, shards: list[dict], width: int, dtype: str):
        self._paths = [directory / shard['file'] for shard in shards]
        self._rows = np.cumsum([0, *(shard['rows'] for shard in shards)], dtype=np.int64)
        self._width, self._dtype = width, np.dtype(dtype)

    def read(self, start: int, end: int) -> np.ndarray:
        """Returns tokens start … end-1; the very last of a split is the shared one of its last shard."""
        pieces = [np.zeros(0, self._dtype)]
        last = len(self._paths) - 1
        while start < end:
            shard = min(last, int(np.searchsorted(self._rows * self._width, start, side='right')) - 1)
            first = int(self._rows[shard]) * self._width
            stop = end if shard == last else min(end, int(self._rows[shard + 1]) * self._width)
            offset = (start - first) * self._dtype.itemsize
            pieces.append(np.fromfile(self._paths[shard], self._dtype, stop - start, offset=offset))
            start = stop
        return np.concatenate(pieces)


class _Holes:
    """Places whose tokens are left out; starts: where they begin, ascending."""

    def __init__(self, lost: list[index.Place]):
        self._ranges = sorted((place.start, place.start + place.tokens) for place in lost)
        self.starts = np.array([start for start, _ in self._ranges])
        self._before = np.cumsum([0, *(end - start for start, end in self._ranges)])

    def ranges(self) -> list[tuple[int, int]]:
        """Returns (first, end) of each."""
        return self._ranges

    def before(self, tokens: np.ndarray) -> np.ndarray:
        """Returns how many tokens are left out of those before each of `tokens`, none of them in a hole."""
        return self._before[np.searchsorted(self.starts, tokens)]

    def within(self, first: int, end: int) -> np.ndarray:
        """Returns bool [end - first]: whether these tokens are left out; no hole goes on beyond them."""
        out = np.zeros(end - first, bool)
        for at in range(*np.searchsorted(self.starts, [first, end]).tolist()):
            start, stop = self._ranges[at]
            out[start - first : stop - first] = True
        return out

    def others(self, tables: Iterator[pyarrow.Table]) -> Iterator[tuple[pyarrow.Table, np.ndarray]]:
        """Yields the places that are not left out, and where they begin."""
        for table in tables:
            stays = ~np.isin(table['start'].to_numpy(), self.starts)
            yield table.filter(stays), table['start'].to_numpy()[stays]


def _write_text(
    file: BinaryIO, rows: _Flat, tokens: int, tables: Iterator[pyarrow.Table], holes: _Holes
) -> Iterator[pyarrow.Table]:
    """Writes the tokens of a text without gaps but those in `holes`; yields where documents stand now."""
    at = 0
    for start, end in [*holes.ranges(), (tokens, tokens)]:
        for first in range(at, start, TOKENS_AT_A_TIME):
            file.write(rows.read(first, min(start, first + TOKENS_AT_A_TIME)).tobytes())
        at = end
    file.flush()
    for kept, start in holes.others(tables):
        yield index.replace(kept, {'start': start - holes.before(start)})


def _write_packed(
    file: BinaryIO,
    rows: _Flat,
    prepared: dict,
    old: dict,
    tables: Callable[[], Iterator[pyarrow.Table]],
    holes: _Holes,
) -> Iterator[pyarrow.Table]:
    """Writes rows of whole documents without `holes` and empty rows; yields where the others stand now."""
    width, _ = manifest.layout(prepared)
    some = max(1, TOKENS_AT_A_TIME // width)
    touched = np.unique(holes.starts // width)
    shared = {row for _, start in holes.others(tables()) for row in np.intersect1d(start // width, touched)}
    at = 0
    for row in [*touched.tolist(), old['rows']]:
        for first in range(at, row, some):
            file.write(rows.read(first * width, min(row, first + some) * width).tobytes())
        at = row + 1
        if row in shared:
            left = rows.read(row * width, at * width)[~holes.within(row * width, at * width)]
            closed = np.full(width, prepared['special_ids']['pad'], prepared['dtype'])
            closed[: len(left)] = left
            file.write(closed.tobytes())
    file.flush()
    emptied = np.array([row for row in touched.tolist() if row not in shared])
    for kept, start in holes.others(tables()):
        row = start // width
        cut = holes.before(start) - holes.before(row * width)
        yield index.replace(kept, {'start': start - cut - width * np.searchsorted(emptied, row)})


def _write_rows(
    file: BinaryIO, rows: _Flat, prepared: dict, tables: Iterator[pyarrow.Table], gone: set[str]
) -> Iterator[pyarrow.Table]:
    """Writes rows of pairs without those `gone` and without empty rows; yields where the others stand now."""
    width = prepared['sequence_length'] + prepared['target_length']
    number = 0  # of rows written
    pending: list[index.Place] = []
    for table in tables:
        places: list[index.Place] = []
        for each in (index.Place(**row) for row in table.to_pylist()):
            if pending and each.start // width != pending[0].start // width:
                number, moved = _write_row(file, rows, prepared, pending, gone, number)
                places += moved
                pending = []
            pending.append(each)
        number, moved = _write_row(file, rows, prepared, pending, gone, number)  # no row spans two tables
        pending = []
        yield index.table(places + moved)
    file.flush()


def _write_row(
    file: BinaryIO, rows: _Flat, prepared: dict, pairs: list[index.Place], gone: set[str], number: int
) -> tuple[int, list[index.Place]]:
    """Writes the pairs of a row that stay, closed up; returns the next row's number and their places."""
    inputs, width = prepared['sequence_length'], prepared['sequence_length'] + prepared['target_length']
    row = np.full(width, prepared['special_ids']['pad'], prepared['dtype'])
    filled = [0, inputs]
    places = []
    for pair in pairs:
        if pair.id in gone:
            continue
        starts = []
        for side, (start, count) in enumerate(
            ((pair.start, pair.tokens), (pair.target_start, pair.target_tokens))
        ):
            row[filled[side] : filled[side] + count] = rows.read(start, start + count)
            starts.append(number * width + filled[side])
            filled[side] += count
        places.append(pair._replace(start=starts[0], target_start=starts[1]))
    if places:
        file.write(row.tobytes())
    return number + bool(places), places
