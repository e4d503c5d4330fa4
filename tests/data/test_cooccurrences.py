"""Co-occurrence counts against counting pair by pair."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from data import cooccurrences
from data.shard_writer import Parts
from data.shards import Rows


def text(documents: int = 60, vocabulary: int = 30, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocabulary, rng.integers(0, 40)).tolist() for _ in range(documents)]


def brute_force(documents: list[list[int]], window: int) -> dict[tuple[int, int], float]:
    counts: dict[tuple[int, int], float] = defaultdict(float)
    for words in documents:
        for at, word in enumerate(words):
            for other in range(max(0, at - window), min(len(words), at + window + 1)):
                if other != at:
                    counts[word, words[other]] += 1 / abs(other - at)
    return counts


def count(tmp_path, documents, window, records_per_row=7):
    tokens = np.array([token for words in documents for token in (1, *words, 2)], '<u2')
    parts = []
    for number, piece in enumerate(np.array_split(tokens, 3)):
        parts.append(tmp_path / f'part-{number}')
        piece.tofile(parts[-1])
    written = cooccurrences.write(
        tmp_path / 'cooccurrences',
        Parts(parts, '<u2'),
        window=window,
        vocab_size=30,
        first_word=3,
        records_per_row=records_per_row,
        shard_tokens=300,
    )
    width, stride = cooccurrences.layout(records_per_row)
    rows = Rows(tmp_path, written['shards'], width=width, stride=stride, dtype=cooccurrences.DTYPE)
    table = rows[np.arange(len(rows))][:, :-1].reshape(len(rows), 3, records_per_row)
    i, j, bits = table.swapaxes(0, 1).reshape(3, -1)
    return written, i, j, np.ascontiguousarray(bits).view(np.float32)


@pytest.mark.parametrize('window', [1, 4, 10])
@pytest.mark.parametrize('limits', [(1 << 25, 1 << 20), (50, 64)], ids=['in memory', 'spilled'])
def test_counts_are_those_of_counting_pair_by_pair(tmp_path, monkeypatch, window, limits):
    monkeypatch.setattr(cooccurrences, 'MOST_PAIRS', limits[0])
    monkeypatch.setattr(cooccurrences, 'TOKENS', limits[1])
    documents = text()
    written, i, j, x = count(tmp_path, documents, window)
    expected = brute_force(documents, window)
    found = {
        (a, b): value for a, b, value in zip(i.tolist(), j.tolist(), x.tolist(), strict=True) if value > 0
    }
    assert written['records'] == len(found) == len(expected)
    assert found.keys() == expected.keys()
    # Records hold float32; sums of up to a few hundred terms are made in float64.
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), rtol=1e-6)


def test_records_come_in_no_order(tmp_path):
    _, i, j, x = count(tmp_path, text(documents=300), 5, records_per_row=64)
    keys = (i.astype(np.int64) * 30 + j)[x > 0]
    assert abs(np.corrcoef(keys, np.arange(len(keys)))[0, 1]) < 0.1


def test_the_same_text_gives_the_same_bytes(tmp_path):
    (tmp_path / 'a').mkdir(), (tmp_path / 'b').mkdir()
    first, second = (count(tmp_path / name, text(), 5)[0] for name in 'ab')
    assert first == second


def test_a_text_without_neighbours_has_no_records(tmp_path):
    path = tmp_path / 'tokens'
    np.array([1, 5, 2, 1, 6, 2], '<u2').tofile(path)
    written = cooccurrences.write(
        tmp_path / 'cooccurrences',
        Parts([path], '<u2'),
        window=5,
        vocab_size=30,
        first_word=3,
        records_per_row=7,
        shard_tokens=300,
    )
    assert written == {'records': 0, 'rows': 0, 'shards': []}
