"""Raw text to a tokenizer and shards: the work of prepare.py.

The source is cut into parts that depend on nothing but the text, each part is cleaned if the config
asks for it, and tokenised, by one of several processes and written down, and the parts are joined in their
order. So the result is the same bytes for any number of processes, and after being killed at any moment the
same command goes on with the parts that are missing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from configs import cleaning
from configs.errors import UserError
from data import (
    checkpoint_tokenizer,
    cleaned,
    duplicates,
    forgetting,
    inputs,
    manifest,
    mirror,
    mixture,
    report,
    sentencepiece_tokenizer,
    sources,
    storage,
    tokenising,
    tokenizer_files,
    word_training,
    workers,
)
from data.progress import PreparationProgress
from data.sampling import sample
from data.sources import SPLIT_BYTES, Split
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer

PACKED_BYTES = (
    16 << 20
)  # a file that cannot be entered anywhere is shared by one more part for each of these, up to MAX_SHARING
MAX_SHARING = 16
MAX_PARTS = 4096  # about; larger sources are cut into larger parts


@dataclass(frozen=True)
class Summary:
    """What prepare() did in data.path; manifest: None in stream mode, which prepares the tokenizer alone."""

    path: str
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
    _refuse_foreign(config.data.path)
    directory = mirror.local(config.data.path)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        mirror.begin(config.data.path)
        return _prepare(directory, config)


def forget(config: ConfigDict, ids: list[str]) -> dict[str, int]:
    """Removes documents from the shards in data.path; returns how many {'documents', 'tokens'} went."""
    manifest.load(config)
    with _alone(mirror.local(config.data.path)):
        mirror.begin(config.data.path)
        return forgetting.forget(config.data.path, ids)


def _prepare(directory: Path, config: ConfigDict) -> Summary:
    started = time.monotonic()
    record = manifest.read(directory / 'preparation.json')
    wanted = {'format': manifest.FORMAT, 'config': manifest.determining(config)}
    if record:
        manifest.refuse_difference(config.data.path, record['config'], wanted['config'])
        _refuse_other_tokenizer(directory, config)
    finished = manifest.read(directory / 'manifest.json') if config.data.mode == 'shards' else None
    found = _find_sources(directory, config, finished is not None)
    files = list(dict.fromkeys(path for of_source in found.values() for path in of_source))
    if files:
        wanted['source'] = sources.describe(files)
        wanted |= manifest.lists(config, sources.describe)
    if record:
        how = 'from text that has changed'
        for name in ('source', *manifest.LISTS):
            manifest.refuse_difference(config.data.path, record.get(name, {}), wanted.get(name, {}), how)
        wanted['config'] = {**record['config'], **wanted['config']}
    if finished:
        mirror.remove(config.data.path, mirror.PARTS)
        forgetting.remove_leftovers(config.data.path, finished)
        return Summary(config.data.path, load_tokenizer(directory / 'tokenizer'), finished, 0.0, True)

    own = [name for name in (sources.shown(file, config) for file in files) if name not in files]
    mirror.publish(config.data.path, own)
    saved = directory / 'tokenizer'
    trained = bool(tokenizer_files.find(saved))
    if config.data.mode == 'stream' or not cleaning.resolve(config):
        texts = partial(sample, files, config)
        encoder = load_tokenizer(saved) if trained else _make_tokenizer(files, texts, config)
        # Only now: a mistake found before this binds the directory to nothing.
        _bind(config, record, wanted)
    else:
        _bind(config, record, wanted)
        sizes = _clean(directory, _parts(files, config), config, bound_before=record is not None)
        texts = partial(cleaned.sample, directory, sizes, config)
        encoder = load_tokenizer(saved) if trained else _make_tokenizer(files, texts, config)
    if not trained:
        encoder.save(saved)
    mirror.publish(config.data.path, mirror.files_below(config.data.path, mirror.TOKENIZER))
    if config.data.mode == 'stream':
        return Summary(config.data.path, encoder, None, time.monotonic() - started, trained)

    parts = _parts(files, config)
    results = tokenising.tokenise(directory, parts, encoder, config)
    result = wanted | tokenising.write_shards(directory, results, encoder, config)
    result['inputs'] = inputs.describe(files, config)
    report.write(directory, found, parts, results, result)
    for left in directory.rglob('*.tmp'):  # by runs that were killed while writing
        left.unlink()
    manifest.write(directory / mirror.FINISHED, result)
    mirror.publish_all(config.data.path)
    mirror.remove(config.data.path, mirror.PARTS)
    return Summary(config.data.path, encoder, result, time.monotonic() - started, False)


def _bind(config: ConfigDict, record: dict | None, wanted: dict) -> None:
    """Writes down what the directory is prepared from; from now on nothing else can be."""
    if wanted != record:
        manifest.write(mirror.local(config.data.path) / mirror.BOUND, wanted)
        mirror.publish(config.data.path, [mirror.BOUND])


def _clean(directory: Path, parts: list[Split], config: ConfigDict, *, bound_before: bool) -> list[int]:
    """Cleans the parts that are not clean yet, finds duplicates, and returns the bytes of each part."""
    found = {
        number: manifest.read(cleaned.path_of(directory, number, 'clean.json'))
        for number in range(len(parts))
    }
    counts = {number: each for number, each in found.items() if each}
    missing = {number: (number, parts[number], config) for number in found if number not in counts}
    earlier = sum(parts[number].size for number in counts)
    print(
        'Cleaning …' if not counts else f'Going on: {len(counts)} of {len(parts)} parts are clean.',
        flush=True,
    )
    try:
        with PreparationProgress(sum(part.size for part in parts), earlier) as progress:
            for number, each in workers.run(
                cleaned.clean_part, missing, config.data.num_workers, config.data.engine
            ):
                counts[number] = each
                progress.add(parts[number].size, each['documents'])
    except UserError:
        if not bound_before and not counts:  # a mistake in the config, more likely than not: it may be mended
            for name in (mirror.PARTS, mirror.BOUND):
                mirror.remove(config.data.path, name)
        raise
    mirror.bring_parts(config.data.path)
    if not any(each['documents'] for each in counts.values()):
        raise UserError(
            f'data.source={config.data.source!r}: nothing is left{tokenising.dropped([*counts.values()])}. '
            'Add text, or switch off what drops it.'
        )
    settings = cleaning.resolve(config)
    if 'duplicates' in settings and duplicates.load(directory / 'parts') is None:
        print('Looking for duplicates …', flush=True)
        found = duplicates.find(directory / 'parts', len(parts), settings.get('similarity'))
        duplicates.write(directory / 'parts', found)
        mirror.publish(config.data.path, [f'{mirror.PARTS}/{duplicates.FOUND}'])
    return [counts[number]['bytes'] for number in range(len(parts))]


def _find_sources(directory: Path, config: ConfigDict, finished: bool) -> dict[str, list[str]]:
    """Returns {source: its files}, none if they are gone but no longer needed."""
    for name, (file, _) in sources.BUILTINS.items():
        if name in config.data.source and not (directory / file).exists():
            print(f'Collecting {name} from Python’s own documentation …', flush=True)
    try:
        return sources.find_sources(config)
    except UserError:
        if finished:
            return {}
        raise


def _refuse_foreign(path: str) -> None:
    if storage.is_file(path):
        raise UserError(f'data.path={path!r} is a file. Give the name of a directory.')
    names = storage.names_in(path)
    if mirror.BOUND not in names:
        ours = ('.tmp', *(file for file, _ in sources.BUILTINS.values()))
        foreign = [name.rstrip('/') for name in names if not name.endswith(ours)]
        if foreign:
            raise UserError(
                f'data.path={path!r} holds files that prepare.py did not write, such as '
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


def _named_tokenizer(config: ConfigDict) -> Tokenizer | None:
    """Returns the tokenizer in tokenizer.path, or that of the model which training begins from, if any."""
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    return checkpoint_tokenizer.load(config.initial_checkpoint) if config.initial_checkpoint else None


def _refuse_other_tokenizer(directory: Path, config: ConfigDict) -> None:
    """Raises UserError if what was prepared here has not the tokenizer of the model to begin from."""
    if not config.initial_checkpoint or not tokenizer_files.find(directory / 'tokenizer'):
        return
    wanted = checkpoint_tokenizer.load(config.initial_checkpoint)
    if load_tokenizer(directory / 'tokenizer').fingerprint != wanted.fingerprint:
        raise UserError(
            f'{config.data.path} was prepared with another tokenizer than that of initial_checkpoint='
            f'{config.initial_checkpoint!r}. It is left as it is: give another data.path, and run prepare.py.'
        )


def _make_tokenizer(files: list[str], texts: Callable[[], Iterable[str]], config: ConfigDict) -> Tokenizer:
    """Returns the tokenizer that the config names, or a new one: of all words, or of a sample (`texts`)."""
    if named := _named_tokenizer(config):
        return named
    if config.tokenizer.kind == 'words':
        print('Counting the words of all the text …', flush=True)
        return word_training.train(_parts(files, config), config)
    print(f'Training a tokenizer of {config.tokenizer.vocab_size:,} pieces …', flush=True)
    return sentencepiece_tokenizer.train(
        texts(),
        kind=config.tokenizer.kind,
        vocab_size=config.tokenizer.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
        control_symbols=config.tokenizer.control_symbols,
    )


def _parts(files: list[str], config: ConfigDict) -> list[Split]:
    """Returns the splits that are worked on one at a time."""
    total = sum(storage.size(path) for path in files)
    split_bytes = max(SPLIT_BYTES, total // MAX_PARTS)
    splits = []
    for path in files:
        sharing = 1
        if not sources.is_splittable(path):
            sharing = min(MAX_SHARING, 1 + storage.size(path) // PACKED_BYTES)
        splits += sources.list_splits([path], config, split_bytes=split_bytes, parts=sharing)
    return splits
