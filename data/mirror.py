"""Prepared directories behind a URL (s3://, gs://, …): the copy on this machine in which they are worked on.

What reads and writes a directory does so on this machine, by memory maps and renames, which object stores do
not have. Of a directory behind a URL that is a copy, ~/.cache/lathe/prepared/NAME, and these functions bring
files from the store and publish them there; of a directory on this machine it is the directory itself, and
they do nothing.

The store is what counts. A part's files are published when it is finished, so that another machine goes on
from it, and the last of them says that the others are there, as manifest.json says of all. Copies of what was
prepared otherwise are emptied; copies of shards are told by the manifest's hashes (data/shards.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data import storage, tokenizer_files
from data.files import write_whole

BOUND = 'preparation.json'
FINISHED = 'manifest.json'
TOKENIZER = 'tokenizer'
PARTS = 'parts'
PROBE = 'probe.tmp'
OWN = ('checked.json', '.tmp')  # ends of names of files that stay in the copy


def local(path: str | os.PathLike) -> Path:
    """Returns the directory on this machine that holds, or is to hold, the files of `path`."""
    path = str(path)
    if not storage.is_remote(path):
        return Path(path)
    path = path.rstrip('/')
    readable = re.sub(r'[^\w.]+', '-', path)[-100:]
    name = f'{readable}-{hashlib.sha256(path.encode()).hexdigest()[:8]}'
    return Path.home() / '.cache' / 'lathe' / 'prepared' / name


def begin(path: str) -> None:
    """Makes the copy what the store holds, before documents are prepared or forgotten.

    Shards are left out: data/shards.py brings them. UserError if the store cannot be written.
    """
    if not storage.is_remote(path):
        return
    copy, names = _agree(path), storage.names_in(path)
    if FINISHED not in names:
        (copy / FINISHED).unlink(missing_ok=True)
        (copy / PROBE).touch()
        publish(path, [PROBE])  # before any work
        remove(path, PROBE)
        published = storage.names_in(_url(path, PARTS))
        for name in storage.names_in(str(copy / PARTS)):
            if name not in published:  # stopped before it was, and not to be had on other machines
                (copy / PARTS / name).unlink()
        bring_parts(path)
    bring(path, [name for name in names if not name.endswith(('/', '.tmp'))])
    _bring_tokenizer(path)


def join(path: str, source: str) -> Path:
    """Returns local(path) for a worker, on any machine, that reads the file `source`."""
    copy = local(path)
    if storage.is_remote(path):
        _agree(path)
        if Path(source).parent == copy and not Path(source).exists():
            bring(path, [Path(source).name])
        if not tokenizer_files.find(copy / TOKENIZER):
            _bring_tokenizer(path)
    return copy


def prepared(path: str | os.PathLike) -> Path:
    """Returns local(path) for a reader, with what the store says of it now, and its tokenizer."""
    copy, path = local(path), str(path)
    if storage.is_remote(path):
        names = storage.names_in(path)
        for name in (BOUND, FINISHED):
            if name in names:
                bring(path, [name])
            else:
                (copy / name).unlink(missing_ok=True)
        _bring_tokenizer(path)
    return copy


def bring(path: str, names: Sequence[str]) -> None:
    """Copies files of the store into the copy; the last comes last."""
    if not storage.is_remote(path):
        return
    beside = {name: local(path) / f'{name}.{os.getpid()}.tmp' for name in names}
    try:
        storage.download(path.rstrip('/'), beside)
        for name, new in beside.items():
            new.replace(local(path) / name)
    finally:
        for new in beside.values():
            new.unlink(missing_ok=True)


def bring_parts(path: str) -> None:
    """Copies the parts that were finished elsewhere."""
    if not storage.is_remote(path):
        return
    copy = local(path)
    names = [f'{PARTS}/{name}' for name in storage.names_in(_url(path, PARTS))]
    # A worker that was killed here may have left half of what another one finished elsewhere.
    halves = {_part(name) for name in names if name.endswith('.json') and not (copy / name).exists()}
    wanted = [name for name in names if _part(name) in halves or not (copy / name).exists()]
    bring(path, sorted(wanted, key=lambda name: name.endswith('.json')))


def publish(path: str, names: Iterable[str]) -> None:
    """Copies files of the copy into the store, the last of them when all others are there."""
    if not storage.is_remote(path):
        return
    names = list(names)
    for some in (names[:-1], names[-1:]):
        storage.upload(path.rstrip('/'), {name: local(path) / name for name in some})


def publish_all(path: str) -> None:
    """Copies all of what is finished into the store, manifest.json last."""
    publish(path, [*(name for name in _files(local(path)) if name != FINISHED), FINISHED])


def files_below(path: str, *directories: str) -> list[str]:
    """Returns the names of all files in some directories of the copy."""
    return [
        name for name in _files(local(path)) if name.startswith(tuple(f'{each}/' for each in directories))
    ]


def remove(path: str, name: str) -> None:
    """Removes a file or a directory, in the store first."""
    if storage.is_remote(path):
        storage.remove(_url(path, name))
    storage.remove(str(local(path) / name))


def _url(path: str, name: str) -> str:
    return f'{path.rstrip("/")}/{name}'


def _part(name: str) -> str:
    return name.partition('.')[0]


def _files(copy: Path) -> Iterator[str]:
    for path in sorted(copy.rglob('*')):
        name = path.relative_to(copy).as_posix()
        if path.is_file() and not name.endswith(OWN) and not name.startswith(f'{PARTS}/'):
            yield name


def _bring_tokenizer(path: str) -> None:
    names = storage.names_in(_url(path, TOKENIZER))
    # The vocabulary last: then other workers see a whole tokenizer or none.
    vocabularies_last = sorted(names, key=lambda name: name not in tokenizer_files.SETTINGS)
    bring(path, [f'{TOKENIZER}/{name}' for name in vocabularies_last])


def _agree(path: str) -> Path:
    """Returns the copy; emptied, if it is of something else than the store says."""
    copy = local(path)
    copy.mkdir(parents=True, exist_ok=True)
    stored = storage.read(_url(path, BOUND))
    if _content(copy / BOUND) != stored:
        with open(f'{copy}.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one machine share the copy
            if _content(copy / BOUND) != stored:
                for name in storage.names_in(str(copy)):
                    storage.remove(str(copy / name))
                if stored is not None:
                    write_whole(copy / BOUND, stored)
    return copy


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
