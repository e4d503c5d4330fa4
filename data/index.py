"""Where each document stands in the shards of a split: DIR/train/documents.parquet, DIR/eval/….

A row for each document, in the order of the parts: `id`; `bytes` of its text; `start` and `tokens`, its
place in the tokens of the split (data/manifest.py); for pairs `target_start` and `target_tokens` likewise,
else 0. With best-fit packing a document that is longer than a row of the shards has a row here for each of
its pieces, one after another, with 0 bytes but for the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow

FILE = 'documents.parquet'
UNPLACED = -1  # `start` of documents that were packed by best fit before their places were written down


class Place(NamedTuple):
    """A document's place in a sequence of tokens."""

    id: str
    bytes: int
    start: int
    tokens: int
    target_start: int = 0
    target_tokens: int = 0


def _schema() -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema(
        [('id', pyarrow.string()), *((name, pyarrow.int64()) for name in Place._fields[1:])]
    )


def write(path: Path, tables: Iterable[pyarrow.Table]) -> None:
    """Writes tables of places as the row groups of one file, in a file beside and then into place."""
    from pyarrow import parquet

    beside = path.with_name(f'{path.name}.tmp')
    with parquet.ParquetWriter(beside, _schema(), compression='zstd') as writer:
        for table in tables:
            if table.num_rows:
                writer.write_table(table, row_group_size=max(1, table.num_rows))
    beside.replace(path)


def table(places: list[Place]) -> pyarrow.Table:
    """Returns the places as a table."""
    import pyarrow

    columns = zip(*places, strict=True) if places else [()] * len(Place._fields)
    return pyarrow.table(dict(zip(Place._fields, map(list, columns), strict=True)), schema=_schema())


def read(path: Path) -> Iterator[pyarrow.Table]:
    """Yields the tables that were written, one at a time."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def shift(places: pyarrow.Table, by: int) -> pyarrow.Table:
    """Returns the places, all of them that are known `by` tokens later."""
    has_target = places['target_tokens'].to_numpy() > 0
    start = places['start'].to_numpy()
    starts = {'start': start + by * (start != UNPLACED)}
    return replace(places, {**starts, 'target_start': places['target_start'].to_numpy() + by * has_target})


def move(places: pyarrow.Table, moved: np.ndarray, width: int) -> pyarrow.Table:
    """Returns the places in rows of `width` tokens as they are when row i begins at moved[i]."""
    start = places['start'].to_numpy()
    now = moved[start // width] + start % width
    return replace(places, {'start': np.where(start == UNPLACED, UNPLACED, now)})


def replace(places: pyarrow.Table, columns: dict[str, np.ndarray]) -> pyarrow.Table:
    """Returns the places with other values in some columns."""
    import pyarrow

    for name, column in columns.items():
        places = places.set_column(places.schema.get_field_index(name), name, pyarrow.array(column))
    return places


def describe(directory: Path, file: str) -> dict[str, str]:
    """Returns what the manifest says of an index: {file, sha256}."""
    return {'file': file, 'sha256': hashlib.sha256((directory / file).read_bytes()).hexdigest()}
