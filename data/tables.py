"""Rows of CSV and TSV files, read from the beginning: a quoted field may hold newlines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping

from data import records
from data.damage import Damage, Report

LARGEST_FIELD = 1 << 30  # characters


class Lines:
    """The lines of blocks of bytes, and the offset of the next one; an iterator of text."""

    def __init__(self, blocks: Iterable[bytes]):
        self._lines = self._split(blocks)
        self.offset = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        text = line.decode('utf-8', 'surrogateescape')
        text = text.removeprefix('\ufeff') if self.offset == 0 else text
        self.offset += len(line)
        return text

    @staticmethod
    def _split(blocks: Iterable[bytes]) -> Iterator[bytes]:
        carry: list[bytes] = []
        for block in blocks:
            end = block.rfind(b'\n') + 1
            if end:
                yield from b''.join([*carry, block[:end]]).splitlines(keepends=True)
                carry = []
            carry.append(block[end:])
        if rest := b''.join(carry):
            yield from rest.splitlines(keepends=True)


def rows(
    path: str, blocks: Iterable[bytes], delimiter: str, report: Report
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (offset in bytes, {column: text}) of each row but the first, which names the columns.

    Text is decoded with 'surrogateescape'. Told to `report`: rows with more or fewer fields than columns,
    and a quote that is never closed.
    """
    csv.field_size_limit(LARGEST_FIELD)
    lines = Lines(blocks)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        offset = lines.offset
        try:
            row = next(reader, None)
        except csv.Error as error:
            report(Damage(f'{path}: the row at byte {offset} is broken ({error}). Mend its quotes.'))
            continue
        if row is None:
            return
        if columns is None:
            columns = row
            if len(set(row)) < len(row):
                raise Damage(
                    f'{path}: its first row names a column twice: {row}. The first row names the columns.'
                )
        elif not row:
            continue  # an empty line
        elif len(row) != len(columns):
            report(
                Damage(
                    f'{path}: the row at byte {offset} has {len(row)} fields, but there are {len(columns)} '
                    f'columns ({", ".join(columns)}). Mend the row.'
                )
            )
        else:
            yield offset, dict(zip(columns, row, strict=True))


def texts(
    path: str, offset: int, row: Mapping[str, str], fields: Mapping[str, str], errors: str
) -> list[str]:
    """Returns the texts in `fields` of a row; Damage for bytes that are not UTF-8, if `errors` is strict."""
    found = records.texts(f'{path}: the row at byte {offset}', row, fields)
    if errors == 'strict':
        for text in found:
            if any('\udc80' <= character <= '\udcff' for character in text):
                raise Damage(
                    f'{path}: the row at byte {offset} holds bytes that are not UTF-8. Convert the file '
                    '(iconv -f ENCODING -t UTF-8), or set --config.data.cleaning.invalid_utf8=True.'
                )
    return found
