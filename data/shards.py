"""Prepared shards: checked when opened, read through memory maps.

The layout of the files stands in data/manifest.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from configs.errors import UserError
from data import mirror, storage
from data.files import write_whole

CHECKED_FILE = 'checked.json'  # which shards have been read through and found whole
MOST_MAPPED = 512  # shards at a time: each takes a file handle, and 1024 are a common limit
FETCHED = 8  # files at a time, so that an interrupted fetch keeps most of them


class Rows:
    """The rows of one split, as an array on disk.

    `len(rows)` is their number; `rows[numbers]` gathers int32 [len(numbers), width].
    width, stride: tokens of a row, and from the beginning of one to the next one's (manifest.row_layout).
    """

    def __init__(self, directory: Path, shards: list[dict], *, width: int, stride: int, dtype: str):
        self._directory, self._shards = directory, shards
        self._width, self._stride, self._dtype = width, stride, np.dtype(dtype)
        self._ends = np.cumsum([shard['rows'] for shard in shards], dtype=np.int64)
        self._view = lru_cache(maxsize=MOST_MAPPED)(self._map)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        shard_of = np.searchsorted(self._ends, numbers, side='right')
        rows = np.empty((len(numbers), self._width), np.int32)
        for shard in np.unique(shard_of).tolist():
            view = self._view(shard)
            (at,) = np.nonzero(shard_of == shard)
            rows[at] = view[numbers[at] - (self._ends[shard] - len(view))]
        return rows

    def _map(self, shard: int) -> np.ndarray:
        """Returns the rows [n, width] of a shard, without reading them."""
        described, size = self._shards[shard], self._dtype.itemsize
        tokens = np.memmap(self._directory / described['file'], self._dtype, 'r')
        # Rows may share a token with the next: a view with overlapping rows, which copies nothing.
        shape, strides = (described['rows'], self._width), (self._stride * size, size)
        return as_strided(tokens, shape, strides, writeable=False)


def check(path: str | Path, shards: list[dict]) -> None:
    """Raises UserError unless every shard of `path` is there, whole, and has the bytes the manifest says.

    Of a directory behind a URL those that its copy here lacks, or has otherwise, are brought.

    Sizes are compared every time. Contents are hashed the first time (about a second per
    gigabyte) and again only when a file's size or time of change is no longer the one noted in
    checked.json.
    """
    directory, path = mirror.local(path), str(path)
    noted_file = directory / CHECKED_FILE
    try:
        noted = json.loads(noted_file.read_bytes())
    except (OSError, ValueError):
        noted = {}
    if storage.is_remote(path):
        wanting = [shard['file'] for shard in shards if _problem(directory, shard, noted)]
        if wanting:
            print(f'Fetching shards from {path}: {len(wanting)} …', flush=True)
        for at in range(0, len(wanting), FETCHED):
            mirror.bring(path, wanting[at : at + FETCHED])
    stamps = {}
    for shard in shards:
        if problem := _problem(directory, shard, noted):
            raise UserError(f'{path}/{shard["file"]} {problem}. Remove {path} and run prepare.py again.')
        stamps[shard['file']] = _stamp(directory, shard)
    if any(noted.get(name) != stamp for name, stamp in stamps.items()) and os.access(directory, os.W_OK):
        write_whole(noted_file, json.dumps({**noted, **stamps}).encode())


def _problem(directory: Path, shard: dict, noted: dict) -> str:
    """Returns what is wrong with a shard's file, '' if nothing is; noted: stamps of those that were whole."""
    file = directory / shard['file']
    try:
        size = file.stat().st_size
    except OSError as error:
        return f'is missing ({error.strerror})'
    if size != shard['bytes']:
        return f'has {size} bytes, the manifest says {shard["bytes"]}: it is damaged'
    if noted.get(shard['file']) != _stamp(directory, shard) and _sha256(file) != shard['sha256']:
        return 'does not have the checksum of the manifest: it is damaged'
    return ''


def _stamp(directory: Path, shard: dict) -> list:
    """Returns what a whole file is known by the next time: hash, bytes, time of change."""
    status = (directory / shard['file']).stat()
    return [shard['sha256'], status.st_size, status.st_mtime_ns]


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
