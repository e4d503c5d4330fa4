"""Removing documents from prepared shards by their ids: the work of `prepare.py --forget`.

Shards are written anew without them, beside, and the manifest then says which are the right ones, so
that a crash leaves either the old shards or the new ones. What is left is, byte for byte, what the same
tokenizer would have made of a source without the documents; rows of pairs keep their other pairs.

A document that was dropped as another one's duplicate lives on in that one, which therefore is forgotten
in its stead. What stays are the tokenizer, which was trained with the document, and the source.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from configs.errors import UserError
from data import index, manifest, mirror, shard_writer, shards, storage

if TYPE_CHECKING:
    import pyarrow

SPLIT_NAMES = ('train', 'eval')
TOKENS_AT_A_TIME = 1 << 22
UNFORGETTABLE = {
    'data.packing': 'where they stand is not written down',
    'data.cooccurrence_window': 'their words have been counted with those of all others',
}


def read_ids(given: str) -> list[str]:
    """Returns the ids in `given`: a file with one a line, or the ids themselves with commas between."""
    path = Path(given)
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else given.split(',')
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f'--forget={given!r} names no document. Give ids, or a file with one a line.')
    return list(dict.fromkeys(ids))


def forget(path: str, ids: list[str]) -> dict[str, int]:
    """Removes documents from the shards in `path`; returns how many {'documents', 'tokens'} went.

    Raises UserError for an id that is not there, and was not forgotten before; then all stays as it was.
    """
    directory = mirror.local(path)
    prepared = manifest.require(directory / 'manifest.json')
    remove_leftovers(path, prepared)
    if any('index' not in prepared[name] for name in SPLIT_NAMES):
        raise UserError(
            f'{path} was prepared before shards had an index of documents. Prepare the text again with '
            'another data.path.'
        )
    for key, reason in UNFORGETTABLE.items():
        if prepared['config'].get(key, kept := manifest.SHARDS_BEFORE[key]) != kept:
            raise UserError(
                f'--forget cannot take documents out of {path}: with {key}={prepared["config"][key]!r} '
                f'{reason}. Prepare the text again without them.'
            )
    mirror.bring(path, [prepared[name]['index']['file'] for name in SPLIT_NAMES])
    before = prepared.get('forgotten', [])
    wanted = set(ids) - set(before)
    wanted |= set(_kept_instead(directory, wanted).values()) - set(before)
    found = {name: _find(directory, prepared[name], wanted) for name in SPLIT_NAMES}
    there = {id_ for of_split in found.values() for id_ in of_split}
    if missing := sorted(wanted - there - _removed_ids(directory)):
        raise UserError(
            f'{path} holds no document {missing[0]!r}'
            + (f' and {len(missing) - 1} more that were asked for' if len(missing) > 1 else '')
            + f'. The ids are in {path}/train/{index.FILE}. Nothing was removed.'
        )
    if len(found['train']) == prepared['train']['documents']:
        raise UserError(f'--forget would leave nothing to train on in {path}. Remove the directory instead.')
    generation = prepared.get('generation', 0) + 1
    result = {**prepared, 'generation': generation, 'forgotten': sorted({*before, *wanted})}
    gone = {'documents': 0, 'tokens': 0}
    for name in SPLIT_NAMES:
        if found[name]:
            shards.check(path, prepared[name]['shards'])
            result[name] = _rewrite(directory, name, f'{name}-{generation}', prepared, found[name])
            for field in gone:
                gone[field] += prepared[name][field] - result[name][field]
    if not result['train']['documents']:
        raise UserError(f'--forget would leave nothing to train on in {path}. Remove the directory instead.')
    if set(result['forgotten']) != set(before):
        _forget_examples(directory, wanted)
        manifest.write(directory / 'manifest.json', result)
        new = mirror.files_below(path, *(f'{name}-{generation}' for name in SPLIT_NAMES))
        mirror.publish(path, [*new, 'report.json', 'manifest.json'])
        remove_leftovers(path, result)
    return gone


def remove_leftovers(path: str, prepared: dict) -> None:
    """Removes shards that the manifest does not name: those of before, or of a run that was killed."""
    named = {Path(shard['file']).parts[0] for name in SPLIT_NAMES for shard in prepared[name]['shards']}
    named |= {
        Path(prepared[name]['index']['file']).parts[0] for name in SPLIT_NAMES if 'index' in prepared[name]
    }
    for place in dict.fromkeys((path, str(mirror.local(path)))):
        for name in storage.names_in(place):
            if name.endswith('/') and name.rstrip('/-0123456789') in SPLIT_NAMES and name[:-1] not in named:
                storage.remove(f'{place}/{name[:-1]}')


def _find(directory: Path, described: dict, wanted: set[str]) -> dict[str, index.Place]:
    """Returns {id: place} of the documents that are in a split."""
    found = {}
    for table in index.read(directory / described['index']['file']):
        for at, id_ in enumerate(table['id'].to_pylist()):
            if id_ in wanted:
                found[id_] = index.Place(**table.slice(at, 1).to_pylist()[0])
    return found


def _removed(directory: Path) -> Iterator[dict]:
    with open(directory / 'removed.jsonl.zst', 'rb') as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file)
        yield from map(json.loads, io.TextIOWrapper(stream, encoding='utf-8'))


def _kept_instead(directory: Path, wanted: set[str]) -> dict[str, str]:
    """Returns {id: the id that was kept} of the wanted documents that were dropped as duplicates."""
    return {
        each['id']: each['detail']
        for each in _removed(directory)
        if each['id'] in wanted and each['step'] == 'duplicates'
    }


def _removed_ids(directory: Path) -> set[str]:
    return {each['id'] for each in _removed(directory)}


def _rewrite(directory: Path, name: str, new: str, prepared: dict, gone: dict[str, index.Place]) -> dict:
    """Writes the shards and the index of a split without the documents `gone`; returns what they are."""
    old = prepared[name]
    shutil.rmtree(directory / new, ignore_errors=True)
    (directory / new).mkdir()
    dtype = prepared['dtype']
    width, stride = manifest.layout(prepared)
    flat = directory / new / 'tokens'
    tables = index.read(directory / old['index']['file'])
    with open(flat, 'wb') as file:
        rows = _Flat(directory, old['shards'], stride, dtype)
        if prepared['target_length']:
            places = _write_rows(file, rows, prepared, tables, gone)
        else:
            places = _write_text(file, rows, old['tokens'], tables, gone)
        index.write(directory / new / index.FILE, places)
    written, continued = shard_writer.write_shards(
        directory / new,
        shard_writer.Parts([flat], dtype),
        width=width,
        stride=stride,
        shard_tokens=prepared['config']['data.shard_tokens'],
        pad_id=prepared['special_ids']['pad'],
        bos_id=prepared['special_ids']['bos'],
        dtype=dtype,
    )
    flat.unlink()
    lost = {
        'documents': len(gone),
        'bytes': sum(place.bytes for place in gone.values()),
        'tokens': sum(place.tokens + place.target_tokens for place in gone.values()),
    }
    counts = {field: old[field] - number for field, number in lost.items()}
    described = {'rows': sum(shard['rows'] for shard in written), 'shards': written}
    if not prepared['target_length']:
        described['cuts'] = continued
    return {**old, **counts, **described, 'index': index.describe(directory, f'{new}/{index.FILE}')}


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


def _write_text(
    file: io.BufferedWriter,
    rows: _Flat,
    tokens: int,
    tables: Iterator[pyarrow.Table],
    gone: dict[str, index.Place],
) -> Iterator[pyarrow.Table]:
    """Writes the tokens of all documents but those `gone`; yields where the others stand now."""
    holes = sorted((place.start, place.start + place.tokens) for place in gone.values())
    at = 0
    for start, end in [*holes, (tokens, tokens)]:
        for first in range(at, start, TOKENS_AT_A_TIME):
            file.write(rows.read(first, min(start, first + TOKENS_AT_A_TIME)).tobytes())
        at = end
    file.flush()
    starts = np.array([start for start, _ in holes])
    lost = np.cumsum([0, *(end - start for start, end in holes)])
    for table in tables:
        kept = table.filter(np.array([id_ not in gone for id_ in table['id'].to_pylist()], bool))
        moved = kept['start'].to_numpy() - lost[np.searchsorted(starts, kept['start'].to_numpy())]
        yield index.replace(kept, {'start': moved})


def _write_rows(
    file: io.BufferedWriter,
    rows: _Flat,
    prepared: dict,
    tables: Iterator[pyarrow.Table],
    gone: dict[str, index.Place],
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
    file: io.BufferedWriter,
    rows: _Flat,
    prepared: dict,
    pairs: list[index.Place],
    gone: dict[str, index.Place],
    number: int,
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


def _forget_examples(directory: Path, wanted: set[str]) -> None:
    """Removes what the report shows of the documents."""
    path = directory / 'report.json'
    said = manifest.require(path)
    for part in (said['all'], *said['sources'].values()):
        for step in part['steps']:
            step['examples'] = [each for each in step['examples'] if each['id'] not in wanted]
    manifest.write(path, said)
