"""The files that a preparation was made from, each by path, size and hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data import storage, workers

BLOCK = 1 << 20


def describe(files: list[str], directory: Path, processes: int) -> list[dict[str, str | int]]:
    """Returns [{path, bytes, sha256}] of the whole of each file; paths in `directory` are relative to it."""
    digests = workers.in_order(sha256, [(path,) for path in files], processes if len(files) > 1 else 1)
    return [
        {'path': _from(directory, path), 'bytes': storage.size(path), 'sha256': digest}
        for path, digest in zip(files, digests, strict=True)
    ]


def sha256(path: str) -> str:
    """Returns the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with storage.open_file(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _from(directory: Path, path: str) -> str:
    inside = not storage.is_remote(path) and Path(path).is_relative_to(directory)
    return Path(path).relative_to(directory).as_posix() if inside else path
