"""Parts of the source to tokens, and the tokens of all parts to shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import cleaning
from configs.errors import UserError
from data import cleaned, cooccurrences, index, manifest, mirror, packing, shard_writer, sources, workers
from data.batching import in_batches
from data.cleaned import name_of, path_of
from data.cleaning.tally import Tally
from data.progress import PreparationProgress
from data.reading import read_clean
from data.sources import Split
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer

SPLIT_NAMES = ('train', 'eval')


def tokenise(directory: Path, parts: list[Split], encoder: Tokenizer, config: ConfigDict) -> list[dict]:
    """Tokenises the parts that are not finished yet, and returns the counts of all, in order."""
    found = {number: manifest.read(path_of(directory, number, 'json')) for number in range(len(parts))}
    results = {number: counts for number, counts in found.items() if counts}
    missing = [number for number in found if number not in results]
    if results:
        print(f'Going on: {len(results)} of {len(parts)} parts are finished.', flush=True)
    earlier = sum(parts[number].size for number in results)
    with PreparationProgress(sum(part.size for part in parts), earlier) as progress:
        jobs = {number: (number, parts[number], encoder.fingerprint, config) for number in missing}
        for number, counts in workers.run(tokenise_part, jobs, config.data.num_workers, config.data.engine):
            results[number] = counts
            progress.add(parts[number].size, _sum([counts], 'documents'), _sum([counts], 'tokens'))
    mirror.bring_parts(config.data.path)
    return [results[number] for number in range(len(parts))]


@lru_cache(maxsize=1)
def _load_tokenizer(directory: Path, fingerprint: str) -> Tokenizer:
    """Loads the tokenizer once for all parts; the fingerprint tells it from the next directory's."""
    return load_tokenizer(directory)


def tokenise_part(number: int, part: Split, fingerprint: str, config: ConfigDict) -> dict:
    """Writes the tokens of one part, then its counts, which say that it is finished; returns them.

    Counts: {'train': those of its Packer, 'eval': …, 'tally': what was read and cleaned}.
    """
    directory = cleaned.join(number, part, config)
    encoder = _load_tokenizer(directory / 'tokenizer', fingerprint)
    dtype = token_dtype(encoder)
    packers = {name: packing.packer(encoder, config) for name in SPLIT_NAMES}
    (directory / 'parts').mkdir(exist_ok=True)
    paths = {name: path_of(directory, number, name) for name in SPLIT_NAMES}
    if cleaning.resolve(config):
        tally = Tally.from_json(manifest.require(path_of(directory, number, 'clean.json'))['tally'])
        found = cleaned.read(directory, number)
    else:
        tally = Tally()
        found = read_clean(part, config, tally)
    with open(paths['train'], 'wb') as train, open(paths['eval'], 'wb') as held_out:
        fraction = config.data.eval_fraction
        files = {'train': train, 'eval': held_out}
        for documents in in_batches(found):
            chosen = [sources.is_held_out(document.text, fraction) for document in documents]
            for name, want in (('train', False), ('eval', True)):
                mine = [document for document, held in zip(documents, chosen, strict=True) if held is want]
                if mine:
                    files[name].write(packers[name].add(mine).astype(dtype).tobytes())
        for name, file in files.items():
            file.write(packers[name].finish().astype(dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
    for name in SPLIT_NAMES:
        index.write(path_of(directory, number, f'{name}.parquet'), [index.table(packers[name].places)])
    counts = {name: packers[name].counts for name in SPLIT_NAMES} | {'tally': tally.to_json()}
    manifest.write(path_of(directory, number, 'json'), {'format': manifest.FORMAT, **counts})
    kinds = (*SPLIT_NAMES, *(f'{name}.parquet' for name in SPLIT_NAMES), 'json')
    mirror.publish(config.data.path, [name_of(number, kind) for kind in kinds])
    return counts


def token_dtype(encoder: Tokenizer) -> str:
    """Returns the NumPy name of the narrowest integers that hold all ids."""
    return '<u2' if encoder.vocab_size <= 1 << 16 else '<u4'


def _sum(results: list[dict], field: str, names: tuple[str, ...] = SPLIT_NAMES) -> int:
    return sum(result[name][field] for result in results for name in names)


def write_shards(directory: Path, results: list[dict], encoder: Tokenizer, config: ConfigDict) -> dict:
    """Joins the parts into shards and returns what the manifest says of them."""
    fields = results[0]['train'] if results else ('documents',)
    totals = {name: {field: _sum(results, field, (name,)) for field in fields} for name in SPLIT_NAMES}
    if not totals['train']['documents']:
        left_out = ''.join(f', left out {reason}' for reason in manifest.left_out(totals))
        raise UserError(
            f'data.source={config.data.source!r} holds no training document (held out: '
            f'{totals["eval"]["documents"]}{left_out}{dropped(results)}). Add text, or lower '
            'data.eval_fraction.'
        )
    dtype = token_dtype(encoder)
    special = {name: getattr(encoder, f'{name}_id') for name in ('pad', 'bos', 'eos')}
    content = {'tokenizer': encoder.fingerprint, 'vocab_size': encoder.vocab_size, 'special_ids': special}
    content |= {'sequence_length': config.sequence_length, 'dtype': dtype}
    content['target_length'] = manifest.target_length(config)
    width, stride = manifest.row_layout(config.sequence_length, content['target_length'], config.data.packing)
    for name in SPLIT_NAMES:
        paths = [path_of(directory, number, name) for number in range(len(results))]
        starts = shard_writer.Parts(paths, dtype).starts
        joined, moved = packing.join(paths, directory / 'parts' / f'joined.{name}', encoder, config, dtype)
        written, continued = shard_writer.write_shards(
            directory / name,
            shard_writer.Parts(joined, dtype),
            width=width,
            stride=stride,
            shard_tokens=config.data.shard_tokens,
            pad_id=encoder.pad_id,
            bos_id=encoder.bos_id,
            dtype=dtype,
        )
        rows = sum(shard['rows'] for shard in written)
        # Only when the parts have been joined is it known where rows of concatenated text begin.
        cuts = {} if config.data.target_field else {'cuts': totals[name].get('cuts', continued)}
        content[name] = {**totals[name], **cuts, 'rows': rows, 'shards': written}
        content[name]['index'] = _join_indices(directory, name, starts, moved, width)
    if config.data.cooccurrence_window:
        print('Counting which words stand near each other …', flush=True)
        paths = [path_of(directory, number, 'train') for number in range(len(results))]
        content['cooccurrences'] = cooccurrences.write(
            directory / 'cooccurrences',
            shard_writer.Parts(paths, dtype),
            window=config.data.cooccurrence_window,
            vocab_size=encoder.vocab_size,
            first_word=max(special.values()) + 1,
            records_per_row=config.sequence_length,
            shard_tokens=config.data.shard_tokens,
        )
    return content


def dropped(results: list[dict]) -> str:
    """Returns such as ', dropped by data.cleaning length: 3' of each step that dropped documents."""
    steps = [(name, step['dropped']) for result in results for name, step in result['tally']['steps'].items()]
    numbers = {name: sum(number for each, number in steps if each == name) for name, _ in steps}
    return ''.join(
        f', dropped by data.cleaning {name}: {number:,}' for name, number in numbers.items() if number
    )


def _join_indices(
    directory: Path, name: str, starts: np.ndarray, moved: np.ndarray | None, width: int
) -> dict:
    """Writes the places of all documents of a split; returns what the manifest says of them.

    starts: where in the tokens of all parts each part begins; moved: what packing.join says of their rows.
    """

    def tables() -> Iterator:
        for number, start in enumerate(starts.tolist()):
            for places in index.read(path_of(directory, number, f'{name}.parquet')):
                places = index.shift(places, start)
                yield places if moved is None else index.move(places, moved, width)

    path = directory / name / index.FILE
    path.parent.mkdir(exist_ok=True)
    index.write(path, tables())
    return index.describe(directory, f'{name}/{index.FILE}')
