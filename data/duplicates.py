"""Finding documents that say the same as an earlier one: exactly, or nearly by MinHash.

Exact: the same 128-bit hash of the text. Near: the sets of all n words in a row (shingles) have a Jaccard
similarity of at least data.cleaning.similarity. Broder 1997: that two sets have the same minimum under a
random hash is as probable as they are similar. So each document has HASHES minima; rows of them in bands
(Leskovec, Rajaraman & Ullman, section 3.4) find candidates, and a sketch of each document, the SKETCH least
hashes of its shingles, says how similar they are: exactly if both have no more, else to within 2 %.

It is done in three passes: parts write down band keys in sorted order and sketches; the keys of all
parts are merged, range by range so that memory stays bounded; then parts are read again without the
documents that were dropped. Of similar documents the first of the source is kept. Chains count: if B is
like A and C like B, both go.

Legend: D documents · S shingles · H hashes · K keys of one part, or of one range of all parts.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import word_hashes
from data.documents import Document
from data.files import write_whole

SHINGLE = 5  # words; of Chinese characters
HASHES = 128
SKETCH = 512
LEAST_RECALL = 0.995  # of candidates among pairs that are just similar enough
SHINGLES_AT_A_TIME = 512  # times HASHES numbers of 8 bytes fit into a processor's cache
RANGE_KEYS = 1 << 22  # keys merged at a time: with their documents 64 MB, and about 200 MB more for sorting
# A document is numbered by its part · 2³² + its place in it, so that numbers are in the order of the source.
KEY = np.dtype([('key', '<u8'), ('document', '<u8')])
DOCUMENT = np.dtype([('low', '<u8'), ('high', '<u8'), ('size', '<u8')])  # 128 bits of hash, bytes
DUPLICATE = np.dtype([('document', '<u8'), ('kept', '<u8'), ('near', '?')])
KINDS = ('keys', 'documents', 'ends', 'sketches', 'ids')  # files of each part
FOUND = 'duplicates'


def bands(similarity: float) -> tuple[int, int]:
    """Returns (number of bands, hashes in each): the longest that still find pairs of this similarity."""
    for rows in range(HASHES, 0, -1):
        count = HASHES // rows
        if 1 - (1 - similarity**rows) ** count >= LEAST_RECALL:
            return count, rows
    return HASHES, 1


def shingle_hashes(text: str) -> np.ndarray:
    """Returns uint64 [S], sorted and each once; a text shorter than a shingle is one."""
    found = word_hashes.find_words(text)
    return np.unique(word_hashes.ngram_hashes(found.hashes, min(SHINGLE, max(1, len(found)))))


def minima(shingles_S: np.ndarray) -> np.ndarray:
    """Returns uint32 [HASHES]: the least value of each hash over the shingles; S ≥ 1."""
    multipliers_H, addends_H = _hash_functions()
    least_H = np.full(HASHES, 0xFFFFFFFF, np.uint32)
    for start in range(0, len(shingles_S), SHINGLES_AT_A_TIME):
        block_S = shingles_S[start : start + SHINGLES_AT_A_TIME]
        # Multiply-shift (Dietzfelbinger et al. 1997): the upper half of a·x + b modulo 2⁶⁴.
        hashed_HS = (multipliers_H[:, None] * block_S + addends_H[:, None]) >> np.uint64(32)
        np.minimum(least_H, hashed_HS.min(axis=1).astype(np.uint32), out=least_H)
    return least_H


@lru_cache(maxsize=1)
def _hash_functions() -> tuple[np.ndarray, np.ndarray]:
    numbers = word_hashes.mix(
        np.arange(1, 2 * HASHES + 1, dtype=np.uint64) * np.uint64(word_hashes.MULTIPLIER)
    )
    return numbers[:HASHES] | np.uint64(1), numbers[HASHES:]


class Sketches:
    """What duplicates are found by, of the documents of one part.

    similarity: of near duplicates; None: only exact ones are looked for.
    """

    def __init__(self, similarity: float | None):
        self._bands = bands(similarity) if similarity else None
        self._ids: list[str] = []
        self._documents: list[tuple[int, int, int]] = []
        self._keys: list[np.ndarray] = []
        self._owners: list[int] = []  # the document of each array of keys
        self._sketches: list[np.ndarray] = []
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, document: Document) -> None:
        """Adds the next document of the part; of a pair, the sketch is of both its texts."""
        text = f'{document.text}\0{document.target}' if document.target else document.text
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        low, high = int.from_bytes(digest[:8], 'little'), int.from_bytes(digest[8:], 'little')
        keys, sketch = [np.array([low], np.uint64)], np.zeros(0, np.uint32)
        if self._bands and low not in self._seen:  # an exact duplicate has nothing to add
            shingles_S = shingle_hashes(text)
            if len(shingles_S):
                keys.append(_band_keys(minima(shingles_S), *self._bands))
                sketch = (shingles_S[:SKETCH] >> np.uint64(32)).astype(np.uint32)
        self._seen.add(low)
        self._owners += [len(self._ids)] * len(keys)
        self._keys += keys
        self._sketches.append(sketch)
        self._ids.append(document.id)
        self._documents.append((low, high, document.size()))

    def write(self, directory: Path, number: int) -> None:
        """Writes the files of part `number`."""
        lengths = [len(keys) for keys in self._keys]
        keys_K = np.zeros(sum(lengths), KEY)
        if lengths:
            keys_K['key'] = np.concatenate(self._keys)
            keys_K['document'] = np.repeat(np.array(self._owners, np.uint64), lengths) | np.uint64(
                number << 32
            )
            keys_K = keys_K[np.lexsort((keys_K['document'], keys_K['key']))]
        keys_K.tofile(_path(directory, number, 'keys'))
        np.array(self._documents, DOCUMENT).tofile(_path(directory, number, 'documents'))
        ends_D = np.cumsum([0, *map(len, self._sketches)], dtype=np.int64)
        ends_D.tofile(_path(directory, number, 'ends'))
        np.concatenate([np.zeros(0, np.uint32), *self._sketches]).tofile(_path(directory, number, 'sketches'))
        _path(directory, number, 'ids').write_text(
            json.dumps(self._ids, ensure_ascii=False), encoding='utf-8'
        )


def _path(directory: Path, number: int, kind: str) -> Path:
    return directory / f'{number:06d}.{kind}'


def _band_keys(minima_H: np.ndarray, count: int, rows: int) -> np.ndarray:
    """Returns uint64 [count]: a hash of the minima of each band, and of which band it is."""
    bands_BR = minima_H[: count * rows].reshape(count, rows).astype(np.uint64)
    keys_B = np.arange(1, count + 1, dtype=np.uint64)
    for row in range(rows):
        keys_B = word_hashes.mix(keys_B * np.uint64(word_hashes.MULTIPLIER) + bands_BR[:, row])
    return keys_B


def find(directory: Path, parts: int, similarity: float | None) -> np.ndarray:
    """Returns DUPLICATE [N], sorted: the documents to drop and which one is kept instead of each.

    directory: where Sketches of parts 0 … parts-1 were written. similarity: as given to them. Memory:
    RANGE_KEYS keys, 24 bytes a document, and what is linked.
    """
    documents = [np.fromfile(_path(directory, number, 'documents'), DOCUMENT) for number in range(parts)]
    links = Links()
    for first, other in _candidates(directory, parts):
        if not links.are_linked(first, other):
            same = _described(documents, first) == _described(documents, other)
            if same or (
                similarity and jaccard(_sketch(directory, first), _sketch(directory, other)) >= similarity
            ):
                links.link(first, other)
    superfluous = links.superfluous()
    near = (_described(documents, a) != _described(documents, b) for a, b in superfluous)
    return np.array([(*pair, far) for pair, far in zip(superfluous, near, strict=True)], DUPLICATE)


def _described(documents: list[np.ndarray], document: int) -> tuple[int, int]:
    described = documents[document >> 32][document & 0xFFFFFFFF]
    return int(described['low']), int(described['high'])


def _candidates(directory: Path, parts: int) -> Iterator[tuple[int, int]]:
    """Yields (earlier, later) documents that share a key: the first of a key with each, and neighbours."""
    paths = [_path(directory, number, 'keys') for number in range(parts)]
    total = sum(path.stat().st_size for path in paths) // KEY.itemsize
    ranges = max(1, math.ceil(total / RANGE_KEYS))
    bounds = [(1 << 64) * number // ranges for number in range(1, ranges)]
    starts = [0] * parts
    for bound in [*bounds, None]:
        ends = [_first_from(path, bound, start) for path, start in zip(paths, starts, strict=True)]
        keys_K = np.empty(sum(ends) - sum(starts), KEY)
        filled = 0
        for path, start, end in zip(paths, starts, ends, strict=True):
            piece = np.fromfile(path, KEY, end - start, offset=start * KEY.itemsize)
            keys_K[filled : filled + len(piece)] = piece
            filled += len(piece)
        starts = ends
        # Of each key the documents come in their order, part by part, which a stable sort keeps.
        order_K = np.argsort(keys_K['key'], kind='stable')
        sorted_K, documents_K = keys_K['key'][order_K], keys_K['document'][order_K]
        del keys_K, order_K
        new_K = np.ones(len(sorted_K), bool)
        new_K[1:] = sorted_K[1:] != sorted_K[:-1]
        first_K = np.maximum.accumulate(np.where(new_K, np.arange(len(new_K)), 0))
        later = np.flatnonzero(~new_K)
        for earlier in (first_K[later], later - 1):
            pairs = np.unique(np.stack([documents_K[earlier], documents_K[later]], axis=1), axis=0)
            yield from pairs.tolist()


def _first_from(path: Path, bound: int | None, start: int) -> int:
    """Returns where the first key of a part is, from `start` on, that is not below `bound`; None: the end."""
    count = path.stat().st_size // KEY.itemsize
    if bound is None or start == count:
        return count
    return bisect_left(np.memmap(path, KEY, 'r')['key'], bound, start)  # which reads a few of them alone


def _sketch(directory: Path, document: int) -> np.ndarray:
    number, at = document >> 32, document & 0xFFFFFFFF
    start, end = np.fromfile(_path(directory, number, 'ends'), np.int64, 2, offset=8 * at).tolist()
    return np.fromfile(_path(directory, number, 'sketches'), np.uint32, end - start, offset=4 * start)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the similarity of two sets by their sketches: the share in both of the least of either."""
    if not len(a) or not len(b):
        return 0.0
    union = np.union1d(a, b)
    if len(a) == SKETCH or len(b) == SKETCH:
        union = union[:SKETCH]  # beyond it, one of the sketches says nothing
    both = np.intersect1d(a, b, assume_unique=False)
    return float(np.isin(union, both, assume_unique=True).sum() / len(union))


class Links:
    """Which documents are linked, directly or by others (disjoint sets); the least of a set stands for it."""

    def __init__(self):
        self._parents: dict[int, int] = {}

    def _root(self, document: int) -> int:
        parents = self._parents
        while (parent := parents.get(document, document)) != document:
            grandparent = parents.get(parent, parent)
            parents[document] = grandparent
            document = grandparent
        return document

    def are_linked(self, first: int, second: int) -> bool:
        """Whether two documents are linked."""
        return self._root(first) == self._root(second)

    def link(self, first: int, second: int) -> None:
        """Links two documents, and all that are linked to them."""
        low, high = sorted((self._root(first), self._root(second)))
        if low != high:
            self._parents[high] = low

    def superfluous(self) -> list[tuple[int, int]]:
        """Returns (document, the first of its set) of all that are not the first, in order."""
        return [(document, self._root(document)) for document in sorted(self._parents)]


def write(directory: Path, found: np.ndarray) -> None:
    """Writes what `find` returned; its presence says that duplicates were looked for."""
    write_whole(directory / FOUND, found.tobytes())


@lru_cache(maxsize=2)
def _load(path: Path, _: float) -> np.ndarray:
    return np.fromfile(path, DUPLICATE)


def load(directory: Path) -> np.ndarray | None:
    """Returns what `write` wrote, None if nothing is there."""
    path = directory / FOUND
    return _load(path, path.stat().st_mtime) if path.exists() else None


def of_part(found: np.ndarray, number: int) -> np.ndarray:
    """Returns the entries of `found` for one part."""
    start, end = np.searchsorted(found['document'], np.array([number << 32, (number + 1) << 32], np.uint64))
    return found[start:end]


def removed(directory: Path, parts: int) -> Iterator[tuple[int, int, dict]]:
    """Yields (part, bytes, {id, step, reason, detail}) of each document dropped; detail: the id kept."""
    found = load(directory)
    if found is None or not len(found):
        return
    order = np.argsort(found['kept'], kind='stable')
    kept_ids = [''] * len(found)
    names: list[str] = []
    part = -1
    for at in order.tolist():
        kept = int(found['kept'][at])
        if kept >> 32 != part:
            part = kept >> 32
            names = _ids(directory, part)
        kept_ids[at] = names[kept & 0xFFFFFFFF]
    at = 0
    for number in range(parts):
        mine = of_part(found, number)
        if not len(mine):
            continue
        names = _ids(directory, number)
        sizes = np.fromfile(_path(directory, number, 'documents'), DOCUMENT)['size']
        for entry in mine:
            index = int(entry['document']) & 0xFFFFFFFF
            reason = 'near duplicate' if entry['near'] else 'exact duplicate'
            said = {'id': names[index], 'step': 'duplicates', 'reason': reason, 'detail': kept_ids[at]}
            yield number, int(sizes[index]), said
            at += 1


def _ids(directory: Path, number: int) -> list[str]:
    return json.loads(_path(directory, number, 'ids').read_bytes())
