"""Raw text to a tokenizer and shards: the work of prepare.py.

The source is cut into parts that depend on nothing but the text, each part is tokenised by one
of several processes and written down, and the parts are joined in their order. So the result is
the same bytes for any number of processes, and after being killed at any moment the same command
goes on with the parts that are missing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ml_collections import ConfigDict

from configs.errors import UserError
from data import (
    cooccurrences,
    manifest,
    mixture,
    packing,
    sentencepiece_tokenizer,
    shard_writer,
    sources,
    tokenizer_files,
    word_training,
    workers,
)
from data.batching import in_batches
from data.compression import is_compressed
from data.progress import PreparationProgress
from data.sampling import sample
from data.sources import SPLIT_BYTES, Split
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer

PACKED_BYTES = 16 << 20  # a compressed file is shared by one more part for each of these, up to MAX_SHARING
MAX_SHARING = 16
MAX_PARTS = 4096  # about; larger sources are cut into larger parts
SPLIT_NAMES = ('train', 'eval')


@dataclass(frozen=True)
class Summary:
    """What prepare() did. manifest is None in stream mode, where only the tokenizer is prepared."""

    directory: Path
    tokenizer: Tokenizer
    manifest: dict | None
    seconds: float
    was_finished: bool


def prepare(config: ConfigDict) -> Summary:
    """Prepares config.data.path, or goes on where an earlier run stopped, or finds it finished.

    Raises UserError for text that cannot be read, a vocabulary that cannot be had, and a
    directory that holds anything else, which is left as it was.
    """
    config = mixture.whole(config)
    directory = Path(config.data.path)
    _refuse_foreign(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        return _prepare(directory, config)


def _prepare(directory: Path, config: ConfigDict) -> Summary:
    started = time.monotonic()
    record = manifest.read(directory / 'preparation.json')
    wanted = {'format': manifest.FORMAT, 'config': manifest.determining(config)}
    if record:
        manifest.refuse_difference(directory, record['config'], wanted['config'])
    finished = manifest.read(directory / 'manifest.json') if config.data.mode == 'shards' else None
    files = _find_files(directory, config, finished is not None)
    if files:
        wanted['source'] = sources.describe(files)
    if record:
        how = 'from text that has changed'
        manifest.refuse_difference(directory, record['source'], wanted.get('source', {}), how)
        wanted['config'] = {**record['config'], **wanted['config']}
    if finished:
        _remove_parts(directory)
        return Summary(directory, load_tokenizer(directory / 'tokenizer'), finished, 0.0, True)

    saved = directory / 'tokenizer'
    trained = bool(tokenizer_files.find(saved))
    encoder = load_tokenizer(saved) if trained else _make_tokenizer(files, config)
    # Only now: a mistake found before this binds the directory to nothing.
    if wanted != record:
        manifest.write(directory / 'preparation.json', wanted)
    if not trained:
        encoder.save(saved)
    if config.data.mode == 'stream':
        return Summary(directory, encoder, None, time.monotonic() - started, trained)

    results = _tokenise(directory, _parts(files, config), encoder, config)
    result = wanted | _write_shards(directory, results, encoder, config)
    for left in directory.rglob('*.tmp'):  # by runs that were killed while writing
        left.unlink()
    manifest.write(directory / 'manifest.json', result)
    _remove_parts(directory)
    return Summary(directory, encoder, result, time.monotonic() - started, False)


def _find_files(directory: Path, config: ConfigDict, finished: bool) -> list[str]:
    """Returns the files of the source, none if it is gone but no longer needed."""
    for name, (file, _) in sources.BUILTINS.items():
        if name in config.data.source and not (directory / file).exists():
            print(f'Collecting {name} from Python’s own documentation …', flush=True)
    try:
        return sources.find_files(config)
    except UserError:
        if finished:
            return []
        raise


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f'data.path={str(directory)!r} is a file. Give the name of a directory.')
    if directory.is_dir() and not (directory / 'preparation.json').exists():
        ours = ('.tmp', *(file for file, _ in sources.BUILTINS.values()))
        foreign = [path.name for path in directory.iterdir() if not path.name.endswith(ours)]
        if foreign:
            raise UserError(
                f'data.path={str(directory)!r} holds files that prepare.py did not write, such as '
                f'{foreign[0]!r}. Give a new or an empty directory.'
            )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Refuses to go on while another process prepares the same directory."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(
            f'another prepare.py is at work on {directory}. Wait for it, or end it first.'
        ) from error
    finally:
        os.close(handle)


def _remove_parts(directory: Path) -> None:
    shutil.rmtree(directory / 'parts', ignore_errors=True)


def _make_tokenizer(files: list[str], config: ConfigDict) -> Tokenizer:
    """Returns the tokenizer of tokenizer.path, or a new one trained on a sample of the text."""
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    if config.tokenizer.kind == 'words':
        print('Counting the words of all the text …', flush=True)
        return word_training.train(_parts(files, config), config)
    print(f'Training a tokenizer of {config.tokenizer.vocab_size:,} pieces …', flush=True)
    return sentencepiece_tokenizer.train(
        sample(files, config),
        kind=config.tokenizer.kind,
        vocab_size=config.tokenizer.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
        control_symbols=config.tokenizer.control_symbols,
    )


def _parts(files: list[str], config: ConfigDict) -> list[Split]:
    """Returns the splits that are tokenised one at a time."""
    total = sum(os.path.getsize(path) for path in files)
    split_bytes = max(SPLIT_BYTES, total // MAX_PARTS)
    splits = []
    for path in files:
        sharing = 1
        if is_compressed(path):
            sharing = min(MAX_SHARING, 1 + os.path.getsize(path) // PACKED_BYTES)
        splits += sources.list_splits([path], config, split_bytes=split_bytes, parts=sharing)
    return splits


def _tokenise(directory: Path, parts: list[Split], encoder: Tokenizer, config: ConfigDict) -> list[dict]:
    """Tokenises the parts that are not finished yet, and returns the counts of all, in order."""
    found = {number: manifest.read(_part_path(directory, number, 'json')) for number in range(len(parts))}
    results = {number: counts for number, counts in found.items() if counts}
    missing = [number for number in found if number not in results]
    if results:
        print(f'Going on: {len(results)} of {len(parts)} parts are finished.', flush=True)
    processes = workers.count(config.data.num_workers, len(missing))
    earlier = sum(parts[number].size for number in results)
    with PreparationProgress(sum(part.size for part in parts), earlier) as progress:
        jobs = [(directory, number, parts[number], encoder.fingerprint, config) for number in missing]
        for job, counts in workers.run(tokenise_part, jobs, processes):
            number = missing[job]
            results[number] = counts
            progress.add(parts[number].size, _sum([counts], 'documents'), _sum([counts], 'tokens'))
    return [results[number] for number in range(len(parts))]


def _part_path(directory: Path, number: int, kind: str) -> Path:
    return directory / 'parts' / f'{number:06d}.{kind}'


@lru_cache(maxsize=1)
def _load_tokenizer(directory: Path, fingerprint: str) -> Tokenizer:
    """Loads the tokenizer once for all parts; the fingerprint tells it from the next directory's."""
    return load_tokenizer(directory)


def tokenise_part(directory: Path, number: int, part: Split, fingerprint: str, config: ConfigDict) -> dict:
    """Writes the tokens of one part, then its counts, which say that it is finished; returns them.

    Counts: {'train': those of its Packer, 'eval': …}.
    """
    encoder = _load_tokenizer(directory / 'tokenizer', fingerprint)
    dtype = token_dtype(encoder)
    packers = {name: packing.packer(encoder, config) for name in SPLIT_NAMES}
    (directory / 'parts').mkdir(exist_ok=True)
    paths = {name: _part_path(directory, number, name) for name in SPLIT_NAMES}
    with open(paths['train'], 'wb') as train, open(paths['eval'], 'wb') as held_out:
        fraction = config.data.eval_fraction
        files = {'train': train, 'eval': held_out}
        for documents in in_batches(sources.read_split(part, config)):
            chosen = [sources.is_held_out(document.text, fraction) for document in documents]
            for name, want in (('train', False), ('eval', True)):
                mine = [document for document, held in zip(documents, chosen, strict=True) if held is want]
                if mine:
                    files[name].write(packers[name].add(mine).astype(dtype).tobytes())
        for name, file in files.items():
            file.write(packers[name].finish().astype(dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
    counts = {name: packers[name].counts for name in SPLIT_NAMES}
    manifest.write(_part_path(directory, number, 'json'), {'format': manifest.FORMAT, **counts})
    return counts


def token_dtype(encoder: Tokenizer) -> str:
    """Returns the NumPy name of the narrowest integers that hold all ids."""
    return '<u2' if encoder.vocab_size <= 1 << 16 else '<u4'


def _sum(results: list[dict], field: str, names: tuple[str, ...] = SPLIT_NAMES) -> int:
    return sum(result[name][field] for result in results for name in names)


def _write_shards(directory: Path, results: list[dict], encoder: Tokenizer, config: ConfigDict) -> dict:
    """Joins the parts into shards and returns what the manifest says of them."""
    fields = results[0]['train']
    totals = {name: {field: _sum(results, field, (name,)) for field in fields} for name in SPLIT_NAMES}
    if not totals['train']['documents']:
        left_out = ''.join(f', left out {reason}' for reason in manifest.left_out(totals))
        raise UserError(
            f'data.source={config.data.source!r} holds no training document (held out: '
            f'{totals["eval"]["documents"]}{left_out}). Add text, or lower data.eval_fraction.'
        )
    dtype = token_dtype(encoder)
    special = {name: getattr(encoder, f'{name}_id') for name in ('pad', 'bos', 'eos')}
    content = {'tokenizer': encoder.fingerprint, 'vocab_size': encoder.vocab_size, 'special_ids': special}
    content |= {'sequence_length': config.sequence_length, 'dtype': dtype}
    content['target_length'] = manifest.target_length(config)
    width, stride = manifest.row_layout(config.sequence_length, content['target_length'], config.data.packing)
    for name in SPLIT_NAMES:
        paths = [_part_path(directory, number, name) for number in range(len(results))]
        paths = packing.join(paths, directory / 'parts' / f'joined.{name}', encoder, config, dtype)
        written, continued = shard_writer.write_shards(
            directory / name,
            shard_writer.Parts(paths, dtype),
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
    if config.data.cooccurrence_window:
        print('Counting which words stand near each other …', flush=True)
        paths = [_part_path(directory, number, 'train') for number in range(len(results))]
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
