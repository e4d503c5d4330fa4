"""Removing documents from prepared shards by their ids: the work of `prepare.py --forget`.

Shards are written anew without them, beside, and the manifest then says which are the right ones, so
that a crash leaves either the old shards or the new ones (data/rewriting.py says what is left).

A document that was dropped as another one's duplicate lives on in that one, which therefore is forgotten
in its stead. What stays are the tokenizer, which was trained with the document, and the source.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import zstandard

from configs.errors import UserError
from data import index, manifest, mirror, rewriting, shard_writer, shards, storage

SPLIT_NAMES = ('train', 'eval')


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
    if window := prepared['config'].get('data.cooccurrence_window'):
        raise UserError(
            f'--forget cannot take documents out of {path}: with data.cooccurrence_window={window} their '
            'words have been counted with those of all others. Prepare the text again without them.'
        )
    mirror.bring(path, [prepared[name]['index']['file'] for name in SPLIT_NAMES])
    before = prepared.get('forgotten', [])
    wanted = set(ids) - set(before)
    wanted |= set(_kept_instead(directory, wanted).values()) - set(before)
    found = {name: _find(directory, prepared[name], wanted) for name in SPLIT_NAMES}
    places = [place for of_split in found.values() for of_one in of_split.values() for place in of_one]
    if any(place.start == index.UNPLACED for place in places):
        raise UserError(
            f'{path} was packed by best fit before places of documents were written down. Prepare the text '
            'again with another data.path.'
        )
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


def _find(directory: Path, described: dict, wanted: set[str]) -> dict[str, list[index.Place]]:
    """Returns {id: places} of the documents that are in a split; of several pieces if it was cut."""
    found: dict[str, list[index.Place]] = {}
    for table in index.read(directory / described['index']['file']):
        for at, id_ in enumerate(table['id'].to_pylist()):
            if id_ in wanted:
                found.setdefault(id_, []).append(index.Place(**table.slice(at, 1).to_pylist()[0]))
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


def _rewrite(
    directory: Path, name: str, new: str, prepared: dict, gone: dict[str, list[index.Place]]
) -> dict:
    """Writes the shards and the index of a split without the documents `gone`; returns what they are."""
    old = prepared[name]
    shutil.rmtree(directory / new, ignore_errors=True)
    (directory / new).mkdir()
    dtype = prepared['dtype']
    width, stride = manifest.layout(prepared)
    flat = directory / new / 'tokens'
    lost = [place for places in gone.values() for place in places]
    with open(flat, 'wb') as file:
        index.write(directory / new / index.FILE, rewriting.write(file, directory, prepared, old, lost))
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
    fewer = {
        'documents': len(gone),
        'bytes': sum(place.bytes for place in lost),
        'tokens': sum(place.tokens + place.target_tokens for place in lost),
    }
    counts = {field: old[field] - number for field, number in fewer.items()}
    described = {'rows': sum(shard['rows'] for shard in written), 'shards': written}
    if not prepared['target_length']:
        described['cuts'] = continued if stride < width else old['cuts'] - (len(lost) - len(gone))
    return {**old, **counts, **described, 'index': index.describe(directory, f'{new}/{index.FILE}')}


def _forget_examples(directory: Path, wanted: set[str]) -> None:
    """Removes what the report shows of the documents."""
    path = directory / 'report.json'
    said = manifest.require(path)
    for part in (said['all'], *said['sources'].values()):
        for step in part['steps']:
            step['examples'] = [each for each in step['examples'] if each['id'] not in wanted]
    manifest.write(path, said)
