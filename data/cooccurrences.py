"""How often words stand near each other: the records (i, j, x) that GloVe learns from.

x is the sum, over all places where j stands within the window on either side of i in one document, of
1 / distance (Pennington et al. 2014, section 4.2). Counting goes through sorted runs on disk, as memory
holds only so many pairs: MOST_PAIRS are sorted at a time, written down, and merged at the end. The
records are then shuffled on disk, in two passes, and laid in rows.

A row holds n = sequence_length records as 3 n int32: n ids i, n ids j, and the bits of n float32 x. What
fills up the last row has pad for i and j, and x = 0. The files are shards as data/manifest.py describes
them with 3 n for sequence_length; the one token more that each row carries is to be ignored.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.shard_writer import Parts, write_shards

MOST_PAIRS = 1 << 23  # sorted at a time, 8 bytes each, and as much again while they are
TOKENS = 1 << 20  # of the text looked at together
DTYPE = '<i4'
FAR = 6  # bits of a key that hold the distance
LARGEST_WINDOW = (1 << FAR) - 1

Counts = tuple[np.ndarray, np.ndarray]  # keys i · V + j, int64, ascending, and x, float64; i ≤ j


def write(
    directory: Path,
    tokens: Parts,
    *,
    window: int,
    vocab_size: int,
    first_word: int,
    records_per_row: int,
    shard_tokens: int,
) -> dict:
    """Counts the pairs of a text and writes them as rows of records in random order.

    Args:
      directory: for shards and, while at work, runs; what an interrupted call left there is overwritten.
      tokens: ids of the text; those below `first_word` end a document.
      window: neighbours on either side that count, up to LARGEST_WINDOW.

    Returns:
      {'records', 'rows', 'shards': [{file, rows, bytes, sha256}]}.
    """
    work = directory / 'runs'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    runs = write_runs(work, pair_counts(tokens, window, vocab_size, first_word))
    total = sum(len(keys) for keys, _ in runs)
    buckets = _scatter(work, merge(runs), vocab_size, -(-2 * total // MOST_PAIRS))
    records, rows = _shuffle(work, buckets, records_per_row)
    width, stride = layout(records_per_row)
    shards, _ = write_shards(
        directory,
        rows,
        width=width,
        stride=stride,
        shard_tokens=shard_tokens,
        pad_id=0,
        bos_id=0,
        dtype=DTYPE,
    )
    shutil.rmtree(work)
    return {'records': records, 'rows': sum(shard['rows'] for shard in shards), 'shards': shards}


def layout(records_per_row: int) -> tuple[int, int]:
    """Returns how many integers a row has, and how many lie from its beginning to the next one's."""
    return 3 * records_per_row + 1, 3 * records_per_row


def pair_counts(tokens: Parts, window: int, vocab_size: int, first_word: int) -> Iterator[Counts]:
    """Yields the summed pairs of stretches of the text, each with i ≤ j: every two places count once."""
    pending, size = [], 0
    for start in range(0, len(tokens), TOKENS):
        ids = tokens.read(start, min(start + TOKENS + window, len(tokens))).astype(np.int64)
        document = np.cumsum(ids < first_word)
        for distance in range(1, window + 1):
            left, right = ids[:-distance][:TOKENS], ids[distance:][:TOKENS]
            near = document[:-distance][:TOKENS] == document[distance:][:TOKENS]
            near &= (left >= first_word) & (right >= first_word)
            left, right = left[near], right[near]
            keys = np.minimum(left, right) * vocab_size + np.maximum(left, right)
            pending.append(keys << FAR | distance)
            size += len(keys)
        if size >= MOST_PAIRS:
            yield _sum_distances(np.concatenate(pending))
            pending, size = [], 0
    if size:
        yield _sum_distances(np.concatenate(pending))


def _sum_distances(keys: np.ndarray) -> Counts:
    """Returns the pairs of keys (i · V + j) · 2^FAR + distance, with Σ 1 / distance of each."""
    keys.sort()  # plain integers: the fastest sort there is; their weights travel in the low bits
    return _sum_equal(keys >> FAR, 1.0 / (keys & LARGEST_WINDOW))


def _sum_equal(keys: np.ndarray, values: np.ndarray) -> Counts:
    """Returns ascending `keys` once each, with the sums of their values."""
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(values, first)


def write_runs(directory: Path, counted: Iterator[Counts]) -> list[Counts]:
    """Writes each of `counted` down and returns them as memory maps."""
    runs = []
    for number, arrays in enumerate(counted):
        paths = [directory / f'run-{number:05d}.{name}' for name in ('keys', 'values')]
        for path, array in zip(paths, arrays, strict=True):
            array.tofile(path)
        keys, values = (np.memmap(path, array.dtype, 'r') for path, array in zip(paths, arrays, strict=True))
        runs.append((keys, values))
    return runs


def merge(runs: Sequence[Counts]) -> Iterator[Counts]:
    """Yields the sums over all runs, in ascending stretches of at most about MOST_PAIRS pairs to sum."""
    ends = [0] * len(runs)
    lengths = [len(keys) for keys, _ in runs]
    share = max(1, MOST_PAIRS // max(1, len(runs)))
    while any(end < length for end, length in zip(ends, lengths, strict=True)):
        # Up to the smallest key that some run has `share` entries before: no run gives more than that.
        limit = min(
            keys[min(end + share, length) - 1]
            for (keys, _), end, length in zip(runs, ends, lengths, strict=True)
            if end < length
        )
        starts, ends = ends, [int(np.searchsorted(keys, limit, side='right')) for keys, _ in runs]
        pieces = [
            (keys[start:end], values[start:end])
            for (keys, values), start, end in zip(runs, starts, ends, strict=True)
        ]
        keys = np.concatenate([keys for keys, _ in pieces])
        order = np.argsort(keys, kind='stable')
        yield _sum_equal(keys[order], np.concatenate([values for _, values in pieces])[order])


def _scatter(directory: Path, merged: Iterator[Counts], vocab_size: int, count: int) -> list[Path]:
    """Writes the records, both (i, j) and (j, i), into `count` files at random; returns the files."""
    paths = [directory / f'bucket-{number:05d}' for number in range(count)]
    for path in paths:
        path.write_bytes(b'')
    for number, (keys, values) in enumerate(merged):
        first, second = np.divmod(keys, vocab_size)
        equal = first == second
        values = np.where(equal, 2 * values, values)  # each of the two places has the other as neighbour
        records = np.empty((len(keys) + int((~equal).sum()), 3), DTYPE)
        records[: len(keys), 0], records[: len(keys), 1] = first, second
        records[len(keys) :, 0], records[len(keys) :, 1] = second[~equal], first[~equal]
        bits = values.astype('<f4').view(DTYPE)
        records[:, 2] = np.concatenate([bits, bits[~equal]])
        bucket = np.random.default_rng((number, count)).integers(count, size=len(records))
        for chosen, path in enumerate(paths):
            with open(path, 'ab') as file:
                records[bucket == chosen].tofile(file)
    return paths


def _shuffle(directory: Path, buckets: Sequence[Path], records_per_row: int) -> tuple[int, Parts]:
    """Shuffles each file in memory, and lays all out in rows; returns the number of records and the rows."""
    paths, total = [], 0
    left = np.zeros((0, 3), DTYPE)
    for number, bucket in enumerate(buckets):
        records = np.fromfile(bucket, DTYPE).reshape(-1, 3)
        total += len(records)
        records = np.concatenate([left, np.random.default_rng((number,)).permutation(records)])
        whole = len(records) // records_per_row * records_per_row
        if bucket == buckets[-1] and whole < len(records):
            whole += records_per_row
            filled = np.zeros((whole, 3), DTYPE)
            filled[: len(records)] = records
            records = filled
        records, left = records[:whole], records[whole:]
        paths.append(directory / f'rows-{number:05d}')
        records.reshape(-1, records_per_row, 3).swapaxes(1, 2).tofile(paths[-1])
        bucket.unlink()
    return total, Parts(paths, DTYPE)
