"""Words of a text as arrays: where they stand, and 64-bit hashes of them and of n in a row.

A word is a run of letters, marks and digits, in lower case. In scripts that are written without spaces
(Chinese, Japanese, Thai, …) every character is a word of its own. All is a few passes of NumPy over
the text's code points, whatever the number of words.

Legend: C characters · W words · G n-grams, one from each word on but the last n - 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SPACE, SYMBOL, DIGIT, LETTER, ALONE = range(5)  # classes of characters; ALONE: a letter that is a word
TABLE = 0x40000  # code points beyond are private or unassigned: symbols
UNSPACED = (  # first and last code point of scripts written without spaces between words
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3041, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2⁶⁴


@dataclass(frozen=True)
class Words:
    """starts, ends: int64 [W], characters; hashes: uint64 [W]; classes: uint8 [C], of all characters."""

    starts: np.ndarray
    ends: np.ndarray
    hashes: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def code_points(text: str) -> np.ndarray:
    """Returns uint32 [C]."""
    return np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), '<u4')


def classify(codes_C: np.ndarray) -> np.ndarray:
    """Returns the classes of code points, uint8 [C]."""
    return _tables()[0][np.minimum(codes_C, TABLE)]


def find_words(text: str) -> Words:
    """Returns the words of `text`."""
    codes_C = code_points(text)
    places_C = np.minimum(codes_C, TABLE)
    classes, values = _tables()
    classes_C = classes[places_C]
    starts_W, ends_W = _bounds(classes_C)
    return Words(starts_W, ends_W, _hash(values[places_C], starts_W, ends_W), classes_C)


def ngram_hashes(hashes_W: np.ndarray, n: int) -> np.ndarray:
    """Returns uint64 [G]: of every n words in a row. None if there are fewer than n."""
    return next(ngrams_of_lengths(hashes_W, [n]))


def ngrams_of_lengths(hashes_W: np.ndarray, lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields what ngram_hashes returns for each of `lengths`, which rise; quicker than one by one."""
    total_G = np.zeros(len(hashes_W), np.uint64)
    done = 0
    for n in lengths:
        for offset in range(done, n):
            count = max(0, len(hashes_W) - offset)
            total_G = total_G[:count] * np.uint64(MULTIPLIER) + hashes_W[offset:]
        done = n
        yield mix(total_G)


def mix(values: np.ndarray) -> np.ndarray:
    """Returns uint64 numbers with every bit depending on every bit of `values` (splitmix64's finaliser)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bounds(classes_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside_C = classes_C >= DIGIT
    alone_C = classes_C == ALONE
    joined_C = inside_C[1:] & inside_C[:-1] & ~(alone_C[1:] | alone_C[:-1])  # with the one before
    first_C, last_C = inside_C.copy(), inside_C.copy()
    first_C[1:] &= ~joined_C
    last_C[:-1] &= ~joined_C
    return np.flatnonzero(first_C), np.flatnonzero(last_C) + 1


def _hash(values_C: np.ndarray, starts_W: np.ndarray, ends_W: np.ndarray) -> np.ndarray:
    """Polynomial hashes, from differences of one running sum over the text."""
    powers, inverses = _powers(1 << max(10, len(values_C).bit_length()))
    sums = np.zeros(len(values_C) + 1, np.uint64)
    np.cumsum(values_C * powers[: len(values_C)], out=sums[1:])
    return mix((sums[ends_W] - sums[starts_W]) * inverses[starts_W])


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    def powers(base: int) -> np.ndarray:
        return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)]))

    return powers(MULTIPLIER), powers(pow(MULTIPLIER, -1, 1 << 64))


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Returns by code point, up to TABLE: its class, uint8, and a random uint64 for its lower case."""
    classes = np.full(TABLE + 1, SYMBOL, np.uint8)
    lower = np.arange(TABLE + 1, dtype=np.uint64)
    for code in range(0x20000):
        character = chr(code)
        if character.isspace():
            classes[code] = SPACE
        elif character.isdecimal():
            classes[code] = DIGIT
        elif character.isalnum() or unicodedata.category(character)[0] == 'M':
            classes[code] = LETTER
            small = character.lower()
            lower[code] = ord(small) if len(small) == 1 else code
    for first, last in UNSPACED:
        block = classes[first : last + 1]
        block[block >= DIGIT] = ALONE
    classes[0x20000:0x40000] = ALONE
    return classes, mix(lower + np.uint64(1))
