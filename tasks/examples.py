"""Labelled examples: records of files as the fields that a task works with.

Files are those of data/sources.py, and besides them SQuAD's .json ({"data": [{"paragraphs": …}]}) or a .json
list of records, tab-separated tables as GLUE has them (quotes mean nothing), and lines of two files side by
side. What cannot be used is left out, counted and reported; when it is more than half, something is wrong
with the file or the map of fields, and that is an error.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs.errors import UserError
from data import columns, records, sources, storage, tables, text
from data.compression import read_blocks
from data.damage import Damage
from tasks import builtin

SIDE_BY_SIDE = '|'
LEAST_USABLE = 0.5  # share of the records


@dataclass(frozen=True)
class Example:
    """One labelled example: what identifies it, and {field of the task: value}."""

    id: str
    fields: Mapping[str, Any]


@dataclass
class Tally:
    """What became of the records that were read: how many are used, and why the others are not."""

    used: int = 0
    left_out: collections.Counter = field(default_factory=collections.Counter)
    changed: collections.Counter = field(default_factory=collections.Counter)
    first: dict[str, str] = field(default_factory=dict)  # where a reason was met first

    def drop(self, reason: str, where: str) -> None:
        """Counts a record that is left out."""
        self.left_out[reason] += 1
        self.first.setdefault(reason, where)

    def change(self, what: str, where: str) -> None:
        """Counts a record that is used otherwise than it stands in the file."""
        self.changed[what] += 1
        self.first.setdefault(what, where)

    def lines(self, split: str) -> list[str]:
        """Returns what to tell a person."""
        told = [f'{split}: {self.used:,} examples']
        for heading, counts in (('left out', self.left_out), ('changed', self.changed)):
            told += [
                f'  {heading}: {count:,} × {reason} (first: {self.first[reason]})'
                for reason, count in counts.most_common()
            ]
        return told


def read(
    task: ModuleType, source: str, config: ConfigDict, tally: Tally, *, labelled: bool = True
) -> list[Example]:
    """Returns the examples of `source` that can be used, in the order of the files; all are held in memory.

    labelled: False takes also what has no answer. Raises UserError when there is none, or more than half
    of the records are of no use.
    """
    found = []
    places = field_map(task, config)
    for where, record in _records(source or task.BUILTIN, config):
        if isinstance(record, Damage):
            tally.drop('damaged', str(record))
            continue
        try:
            wanted = places if labelled else _present(task, record, places)
            fields = {name: _value(where, record, name, place) for name, place in wanted.items()}
        except Damage as damage:
            tally.drop('a field is missing', str(damage))
            continue
        problem = next((f'{name} is empty' for name, value in fields.items() if _is_empty(value)), None)
        problem = problem or task.problem(fields)
        if problem:
            tally.drop(problem, where)
        else:
            found.append(Example(where, fields))
            tally.used += 1
    lost = sum(tally.left_out.values())
    if not found or lost > LEAST_USABLE * (lost + len(found)):
        if not lost:
            raise UserError(f'{source or task.BUILTIN} holds no records.')
        reason, count = tally.left_out.most_common(1)[0]
        advice = ''
        if reason == 'a field is missing':
            fields = ', '.join(f'{name}=NAME' for name in places)
            advice = f" Say where the fields are with task.fields (--fields), such as '{fields}'."
        raise UserError(
            f'{source or task.BUILTIN}: {lost:,} of {lost + len(found):,} records cannot be used, {count:,} '
            f'of them because {reason}: {tally.first[reason].rstrip(".")}.{advice}'
        )
    return found


def read_splits(
    task: ModuleType, config: ConfigDict, tally: Tally, held_out_tally: Tally
) -> tuple[list[Example], list[Example]]:
    """Returns the examples of an experiment: (to learn from, held out)."""
    found = read(task, config.task.source, config, tally)
    if config.task.eval_source:
        return found, read(task, config.task.eval_source, config, held_out_tally)
    training, held_out = split(found, task, config.data.eval_fraction)
    tally.used, held_out_tally.used = len(training), len(held_out)
    return training, held_out


def split(examples: list[Example], task: ModuleType, fraction: float) -> tuple[list[Example], list[Example]]:
    """Returns (training, held out) by the hash of what is asked, which never moves as examples are added."""
    training, held_out = [], []
    for example in examples:
        asked = json.dumps([example.fields[name] for name in task.ASKED], ensure_ascii=False)
        (held_out if sources.is_held_out(asked, fraction) else training).append(example)
    return training, held_out


def field_map(task: ModuleType, config: ConfigDict) -> dict[str, str]:
    """Returns {field of the task: where it is in a record}; UserError for a field that the task has not."""
    wanted = dict(task.FIELDS)
    for entry in filter(None, (part.strip() for part in config.task.fields.split(','))):
        name, equals, place = (text.strip() for text in entry.partition('='))
        if not equals or name not in wanted:
            raise UserError(
                f'task.fields={config.task.fields!r}: {entry!r} must be FIELD=NAME, where FIELD is one of '
                f'{", ".join(wanted)}.'
            )
        wanted[name] = place
    return wanted


def _present(task: ModuleType, record: Mapping, places: Mapping[str, str]) -> dict[str, str]:
    """Returns the places of the question's fields, and of those of the answer that are there."""

    def is_there(place: str) -> bool:
        return any(
            not _is_empty(found) for name in records.names(place) if (found := records.find(record, name))
        )

    return {name: place for name, place in places.items() if name in task.ASKED or is_there(place)}


def _value(where: str, record: Mapping, name: str, specification: str) -> Any:
    if '{' in specification:
        return records.texts(where, record, {f'task.fields {name}': specification})[0]
    for choice in records.names(specification):
        value = records.find(record, choice)
        if value is not None:
            return value
    known = ', '.join(map(repr, record))
    raise Damage(f'{where} has no {specification!r} for the field {name!r}; it has {known or "nothing"}.')


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _records(source: str, config: ConfigDict) -> Iterator[tuple[str, Mapping | Damage]]:
    """Yields (where it stands, a record or what is wrong with it)."""
    if source.startswith('builtin:'):
        yield from builtin.records(source)
        return
    if SIDE_BY_SIDE in source:
        yield from _side_by_side(source)
        return
    for name in filter(None, (part.strip() for part in source.split(','))):
        paths = [name] if name.endswith('.json') else sources.expand(name, config)
        for path in paths:
            yield from _of_file(path)


def _of_file(path: str) -> Iterator[tuple[str, Mapping | Damage]]:
    damaged: list[Damage] = []
    kind = Path(path).suffix if path.endswith('.json') else sources.file_format(path)
    if kind == '.json':
        found = _json(path)
    elif kind == '.jsonl':
        found = _json_lines(path)
    elif kind == '.csv':
        found = tables.rows(path, read_blocks(path, 0), ',', damaged.append)
    elif kind == '.tsv':
        found = _plain_table(path)
    elif kind == '.parquet':
        found = columns.parquet_rows(path, 0, None, [], damaged.append)
    elif kind == '.arrow':
        found = columns.arrow_rows(path, [], damaged.append)
    else:
        raise UserError(f'{path} has no fields; examples are .jsonl, .json, .csv, .tsv, .parquet or .arrow.')
    try:
        for at, record in found:
            yield f'{path}:{at}', _readable(path, at, record)
            while damaged:
                yield path, damaged.pop(0)
    except Damage as damage:  # of the file as a whole: what was read before is whole
        yield path, damage
    for damage in damaged:
        yield path, damage


def _readable(path: str, at: int, record: Any) -> Mapping | Damage:
    """Returns the record, or what is wrong if bytes of it are not UTF-8."""
    if isinstance(record, Damage):
        return record
    if not isinstance(record, Mapping):
        return Damage(f'{path}:{at} is no record but {str(record)[:60]!r}.')
    try:
        for value in records.all_texts(record):
            value.encode()
    except UnicodeEncodeError:
        return Damage(
            f'{path}:{at} holds bytes that are not UTF-8; convert the file (iconv -f ENCODING -t UTF-8).'
        )
    return record


def _json_lines(path: str) -> Iterator[tuple[int, Any]]:
    for offset, line in text.documents(read_blocks(path, 0), 0, None, 'line'):
        try:
            yield (
                offset,
                text.parse_json(f'{path}: the line at byte {offset}', text.decode(path, offset, line)),
            )
        except Damage as damage:
            yield offset, damage


def _plain_table(path: str) -> Iterator[tuple[int, Any]]:
    """Yields rows of tab-separated lines, the first of which names the columns; quotes mean nothing."""
    names: list[str] | None = None
    for offset, line in text.documents(read_blocks(path, 0), 0, None, 'line'):
        try:
            cells = text.decode(path, offset, line).split('\t')
        except Damage as damage:
            yield offset, damage
            continue
        if names is None:
            names = cells
        elif len(cells) != len(names):
            yield (
                offset,
                Damage(f'{path}: the row at byte {offset} has {len(cells)} fields, not {len(names)}.'),
            )
        else:
            yield offset, dict(zip(names, cells, strict=True))


def _json(path: str) -> Iterator[tuple[int, Any]]:
    """Yields the records of a JSON list, or the questions of a file in SQuAD's format."""
    try:
        with storage.open_file(path) as file:
            content = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as JSON ({error}). Copy or download it again.') from error
    if isinstance(content, dict) and isinstance(content.get('data'), list):
        content = content['data']
    if not isinstance(content, list):
        raise UserError(
            f'{path} holds no list of records; expected [{{…}}, …] or SQuAD\'s {{"data": [{{…}}]}}.'
        )
    articles = any(isinstance(each, dict) and 'paragraphs' in each for each in content)
    yield from enumerate(_questions(content) if articles else content)


def _questions(articles: list[dict]) -> Iterator[dict]:
    for article in articles:
        for paragraph in article['paragraphs']:
            for question in paragraph['qas']:
                yield {'answers': [], **question, 'context': paragraph['context']}


def _side_by_side(source: str) -> Iterator[tuple[str, Mapping | Damage]]:
    """Yields {'source', 'target'} of equal lines of two files; UserError if one has more."""
    names = [name.strip() for name in source.split(SIDE_BY_SIDE)]
    if len(names) != 2:
        raise UserError(f"task.source={source!r} must be two files, 'SOURCE{SIDE_BY_SIDE}TARGET'.")
    lines = [tables.Lines(read_blocks(name, 0)) for name in names]
    for number, pair in enumerate(zip_longest(*lines), 1):
        if None in pair:
            raise UserError(
                f'{names[pair.index(None)]} ends before line {number}, and the other file does not.'
            )
        record = dict(zip(('source', 'target'), (line.rstrip('\r\n') for line in pair), strict=True))
        yield f'{names[0]}:{number}', _readable(names[0], number, record)


def balance(labels: Iterable[str]) -> str:
    """Returns 'a 60.0 %, b 40.0 %' of labels, the most frequent first."""
    counts = collections.Counter(labels)
    total = sum(counts.values())
    return ', '.join(f'{label} {100 * count / total:.1f} %' for label, count in counts.most_common(20))
