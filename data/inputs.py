"""The files that a preparation was made from, each by path, size and hash."""

from __future__ import annotations

import hashlib

from ml_collections import ConfigDict

from data import storage, workers
from data.sources import shown

BLOCK = 1 << 20


def describe(files: list[str], config: ConfigDict) -> list[dict[str, str | int]]:
    """Returns [{path, bytes, sha256}] of the whole of each file."""
    processes = config.data.num_workers if len(files) > 1 else 1
    digests = workers.in_order(sha256, [(path,) for path in files], processes)
    return [
        {'path': shown(path, config), 'bytes': storage.size(path), 'sha256': digest}
        for path, digest in zip(files, digests, strict=True)
    ]


def sha256(path: str) -> str:
    """Returns the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with storage.open_file(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
