"""Writing shards: finished parts, one after another, cut into rows and files.

The layout of the files stands in data/manifest.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.files import write_whole


class Parts:
    """The token files of finished parts, read as one sequence; starts: where in it each part begins."""

    def __init__(self, paths: Sequence[Path], dtype: str):
        self._paths, self._dtype = paths, np.dtype(dtype)
        counts = [path.stat().st_size // self._dtype.itemsize for path in paths]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.starts = self._starts[:-1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, end: int) -> np.ndarray:
        """Returns tokens start … end-1."""
        return np.concatenate(list(self._pieces(start, end)) or [np.zeros(0, self._dtype)])

    def _pieces(self, start: int, end: int) -> Iterator[np.ndarray]:
        part = int(np.searchsorted(self._starts, start, side='right')) - 1
        while start < end:
            count = min(end, int(self._starts[part + 1])) - start
            skipped = (start - int(self._starts[part])) * self._dtype.itemsize
            if count:
                yield np.fromfile(self._paths[part], self._dtype, count, offset=skipped)
            start += count
            part += 1


def write_shards(
    directory: Path,
    parts: Parts,
    *,
    width: int,
    stride: int,
    shard_tokens: int,
    pad_id: int,
    bos_id: int,
    dtype: str,
) -> tuple[list[dict], int]:
    """Writes all tokens of `parts` as shards of rows.

    width, stride: tokens of a row, and from one row's beginning to the next one's (manifest.row_layout).
    Returns [{file, rows, bytes, sha256}], and how many rows but the first do not begin with bos.
    A shard that a killed run left is written again: the bytes are the same.
    """
    num_tokens, shared = len(parts), width - stride
    rows = -(-(num_tokens - shared) // stride) if num_tokens > shared else 0
    rows_per_shard = max(1, shard_tokens // stride)
    shards, without_bos = [], 0
    for number, first in enumerate(range(0, rows, rows_per_shard)):
        count = min(rows_per_shard, rows - first)
        tokens = np.full(count * stride + shared, pad_id, dtype)
        found = parts.read(first * stride, min(first * stride + len(tokens), num_tokens))
        tokens[: len(found)] = found
        begins = tokens[::stride][:count] == bos_id
        without_bos += int((~begins[0 if number else 1 :]).sum())
        content = tokens.tobytes()
        path = directory / f'shard-{number:05d}.bin'
        write_whole(path, content)
        name = path.relative_to(directory.parent).as_posix()
        digest = hashlib.sha256(content).hexdigest()
        shards.append({'file': name, 'rows': count, 'bytes': len(content), 'sha256': digest})
    return shards, without_bos
