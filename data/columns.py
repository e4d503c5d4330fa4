"""Rows of Parquet and Arrow files, as many at a time as fit into memory, of the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from data import storage
from data.damage import Damage, Report

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_A_TIME = 1024


@lru_cache(maxsize=1 << 12)
def row_groups(path: str) -> list[tuple[int, int]]:
    """Returns (rows, bytes) of each row group of a Parquet file; Damage if it cannot be read."""
    with _open_parquet(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


@contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    """Opens a Parquet file; Damage if its footer cannot be read."""
    import pyarrow
    from pyarrow import parquet

    with storage.open_file(path) as raw:
        try:
            file = parquet.ParquetFile(raw)
        except (OSError, pyarrow.ArrowException) as error:
            raise Damage(
                f'{path} is damaged or cut short: the footer at the end of its {storage.size(path)} bytes '
                f'cannot be read ({_short(error)}). Copy or download it again, or leave it out.'
            ) from error
        yield file


def parquet_rows(
    path: str, start: int, end: int | None, wanted: list[str], report: Report
) -> Iterator[tuple[int, dict]]:
    """Yields (number of the row, {column: value}) of row groups start … end-1.

    wanted: names of fields; only the columns that they are in are read. Damage of a row group is told
    to `report`, and the next one is gone on with.
    """
    import pyarrow

    try:
        groups = row_groups(path)
    except Damage as damage:
        report(damage)
        return
    first = sum(rows for rows, _ in groups[:start])
    with _open_parquet(path) as file:
        columns = _columns(path, file.schema_arrow, wanted)
        for group in range(start, len(groups) if end is None else end):
            number = first
            first += groups[group][0]
            try:
                for batch in file.iter_batches(ROWS_AT_A_TIME, row_groups=[group], columns=columns):
                    for row in batch.to_pylist():
                        yield number, row
                        number += 1
            except (OSError, pyarrow.ArrowException) as error:
                report(
                    Damage(
                        f'{path} is damaged: row group {group} cannot be read behind row {number} of '
                        f'the file ({_short(error)}). Copy or download it again, or leave it out.'
                    )
                )


def arrow_rows(path: str, wanted: list[str], report: Report) -> Iterator[tuple[int, dict]]:
    """Yields (number of the row, {column: value}) of an Arrow file as `datasets` saves it, likewise."""
    import pyarrow

    number = 0
    try:
        with storage.open_file(path) as file:
            reader = pyarrow.ipc.open_stream(file)
            columns = _columns(path, reader.schema, wanted)
            for batch in reader:
                for row in batch.select(columns).to_pylist():
                    yield number, row
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        report(
            Damage(
                f'{path} is damaged or cut short: nothing can be read behind row {number} '
                f'({_short(error)}). Copy or download it again, or leave it out.'
            )
        )


def _columns(path: str, schema: pyarrow.Schema, wanted: list[str]) -> list[str]:
    """Returns the columns of the fields in `wanted`; all if none is there, for the error to name them."""
    tops = {name if name in schema.names else name.partition('.')[0] for name in wanted}
    if not schema.names:
        raise UserError(f'{path} has no columns.')
    return [name for name in schema.names if name in tops] or list(schema.names)


def _short(error: BaseException) -> str:
    return str(error).strip().split('\n')[0][:200]
