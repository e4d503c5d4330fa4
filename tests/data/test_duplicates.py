from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import duplicates
from data.documents import Document

VOCABULARY = [f'word{n}' for n in range(5000)]


def true_jaccard(a: str, b: str) -> float:
    """The definition, over sets of five words."""
    sets = []
    for text in (a, b):
        tokens = text.split()
        sets.append({tuple(tokens[at : at + 5]) for at in range(len(tokens) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def random_text(rng: random.Random, words: int) -> str:
    return ' '.join(rng.choices(VOCABULARY, k=words))


def find(tmp_path: Path, parts: list[list[str]], similarity: float | None = 0.8) -> list[tuple]:
    """Returns (dropped, kept, near), each document as 'part/number'."""
    tmp_path.mkdir(exist_ok=True)
    for number, texts in enumerate(parts):
        sketches = duplicates.Sketches(similarity)
        for at, text in enumerate(texts):
            sketches.add(Document(f'{number}/{at}', text))
        sketches.write(tmp_path, number)
    found = duplicates.find(tmp_path, len(parts), similarity)
    duplicates.write(tmp_path, found)
    place = lambda document: f'{document >> 32}/{document & 0xFFFFFFFF}'  # noqa: E731
    return [(place(document), place(kept), near) for document, kept, near in found.tolist()]


@pytest.mark.parametrize('words', [30, 200, 3000])
def test_sketches_say_how_similar_sets_are(words: int):
    rng = random.Random(words)
    base = random_text(rng, words).split()
    for changed in (0, 1, 2, words // 10):
        other = list(base)
        for at in rng.sample(range(words), changed):
            other[at] = 'changed'
        sketches = []
        for text in (base, other):
            hashes = duplicates.shingle_hashes(' '.join(text))[: duplicates.SKETCH]
            sketches.append((hashes >> np.uint64(32)).astype(np.uint32))
        # Exact below SKETCH shingles; above, four standard errors: sqrt(0.25 / 512) each.
        tolerance = 0.09 if words > duplicates.SKETCH else 1e-9
        expected = true_jaccard(' '.join(base), ' '.join(other))
        assert duplicates.jaccard(*sketches) == pytest.approx(expected, abs=tolerance)


def test_equal_minima_are_as_probable_as_sets_are_similar():
    rng = np.random.default_rng(0)
    for similarity in (0.2, 0.5, 0.9):
        agreed = []
        for _ in range(40):
            both = rng.integers(0, 1 << 63, 1000, dtype=np.uint64)
            alone = round(1000 * (1 - similarity))
            a, b = both[alone // 2 :], both[: len(both) - (alone - alone // 2)]
            agreed.append(np.mean(duplicates.minima(np.sort(a)) == duplicates.minima(np.sort(b))))
        # 40 · 128 draws, independent between pairs: four standard errors are below 0.03.
        assert np.mean(agreed) == pytest.approx(similarity, abs=0.03)


@pytest.mark.parametrize('similarity', [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_that_are_similar_enough(similarity: float):
    count, rows = duplicates.bands(similarity)
    assert count * rows <= duplicates.HASHES
    assert 1 - (1 - similarity**rows) ** count >= 0.995


def test_the_first_of_similar_documents_is_kept(tmp_path: Path):
    rng = random.Random(1)
    text, other = random_text(rng, 200), random_text(rng, 200)
    near = text.replace(text.split()[100], 'changed')
    chained = near.replace(text.split()[10], 'changed', 1)
    assert find(tmp_path / 'a', [[other, text], [near, text, 'unlike'], [chained]]) == [
        ('1/0', '0/1', True),
        ('1/1', '0/1', False),
        ('2/0', '0/1', True),
    ]
    assert find(tmp_path / 'b', [[other, text], [near, text]], similarity=None) == [('1/1', '0/1', False)]


def test_short_empty_and_chinese_documents_have_duplicates_too(tmp_path: Path):
    chinese = '在场的人都不会忘记第一个回答之前那段漫长的沉默，也不会忘记那个回答本身，更不会忘记后来。'
    parts = [['', 'one two', '!', chinese], ['', 'One, two!', '?', chinese.replace('，', '；'), chinese[:20]]]
    assert [pair[:2] for pair in find(tmp_path, parts)] == [('1/0', '0/0'), ('1/1', '0/1'), ('1/3', '0/3')]


def test_ranges_of_keys_do_not_change_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(2)
    texts = [random_text(rng, 40) for _ in range(60)]
    parts = [texts, texts[30:] + [random_text(rng, 40) for _ in range(20)], texts[:10]]
    whole = find(tmp_path / 'a', parts)
    assert len(whole) == 40
    monkeypatch.setattr(duplicates, 'RANGE_KEYS', 50)
    assert find(tmp_path / 'b', parts) == whole


def test_removed_documents_are_listed_with_the_kept_one(tmp_path: Path):
    rng = random.Random(3)
    texts = [random_text(rng, 40) for _ in range(4)]
    find(tmp_path, [texts, [texts[3], 'x', texts[0]]])
    said = [
        (part, each['id'], each['detail'], each['reason'])
        for part, _, each in duplicates.removed(tmp_path, 2)
    ]
    assert said == [(1, '1/0', '0/3', 'exact duplicate'), (1, '1/2', '0/0', 'exact duplicate')]


@given(st.text())
def test_any_text_has_shingles_or_none(text: str):
    hashes = duplicates.shingle_hashes(text)
    assert (np.diff(hashes.astype(object)) > 0).all()
