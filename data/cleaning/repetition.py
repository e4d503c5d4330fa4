"""Filters of text that repeats itself: Rae et al. 2021 (Gopher), table A1.

For Chinese, n words are taken for 2n characters, as a Chinese word has 1.5 on average.

Legend: W words · G n-grams, one from each word on but the last n - 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from data import words
from data.cleaning.quality import is_chinese
from data.cleaning.steps import Dropped

# The largest shares that stay. Lines and paragraphs that stood before, counted and by their characters.
LINES, LINE_CHARACTERS = 0.30, 0.20
PARAGRAPHS, PARAGRAPH_CHARACTERS = 0.30, 0.20
# n: characters of words in the most frequent n-gram; in n-grams that stood before.
MOST_FREQUENT = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def gopher_repetition(text: str) -> str | Dropped:
    """Drops texts in which lines, paragraphs or n-grams make up more than table A1 allows."""
    for name, separator, most, most_characters in (
        ('lines', '\n+', LINES, LINE_CHARACTERS),
        ('paragraphs', '\n{2,}', PARAGRAPHS, PARAGRAPH_CHARACTERS),
    ):
        counted, characters = repeated_pieces(re.split(separator, text.strip()))
        if counted > most or characters > most_characters:
            return Dropped(f'Gopher: repeated {name}')
    found = words.find_words(text)
    scale = 2 if is_chinese(words.classify(words.code_points(text))) else 1
    lengths_W = found.ends - found.starts
    for n, most in MOST_FREQUENT.items():
        if most_frequent_share(found.hashes, lengths_W, n * scale) > most:
            return Dropped(f'Gopher: one {n}-gram too often')
    for n, most in REPEATED.items():
        if repeated_share(found.hashes, lengths_W, n * scale) > most:
            return Dropped(f'Gopher: repeated {n}-grams')
    return text


def repeated_pieces(pieces: Sequence[str]) -> tuple[float, float]:
    """Returns the shares of pieces that stood before among all, counted and by their characters."""
    seen: set[str] = set()
    number = characters = 0
    for piece in pieces:
        if piece in seen:
            number += 1
            characters += len(piece)
        seen.add(piece)
    return number / max(1, len(pieces)), characters / max(1, sum(map(len, pieces)))


def most_frequent_share(hashes_W: np.ndarray, lengths_W: np.ndarray, n: int) -> float:
    """Returns the share of the words' characters in the n-gram that occurs most often, at least twice.

    Of several that occur as often, the longest counts.
    """
    hashes_G = words.ngram_hashes(hashes_W, n)
    if len(hashes_G) < 2:
        return 0.0
    _, first, counts = np.unique(hashes_G, return_index=True, return_counts=True)
    if counts.max() < 2:
        return 0.0
    ends_W = np.concatenate([[0], np.cumsum(lengths_W)])
    often = first[counts == counts.max()]
    return float(counts.max() * (ends_W[often + n] - ends_W[often]).max() / ends_W[-1])


def repeated_share(hashes_W: np.ndarray, lengths_W: np.ndarray, n: int) -> float:
    """Returns the share of the words' characters in n-grams that stood before, each character once."""
    hashes_G = words.ngram_hashes(hashes_W, n)
    if len(hashes_G) < 2:
        return 0.0
    repeated_G = np.ones(len(hashes_G), np.int64)
    repeated_G[np.unique(hashes_G, return_index=True)[1]] = 0
    if not repeated_G.any():
        return 0.0
    steps = np.zeros(len(hashes_W) + 1, np.int64)
    steps[: len(repeated_G)] += repeated_G
    steps[n : n + len(repeated_G)] -= repeated_G
    covered_W = np.cumsum(steps[:-1]) > 0
    return float(lengths_W[covered_W].sum() / lengths_W.sum())
