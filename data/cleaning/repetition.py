"""Filters of text that repeats itself: Rae et al. 2021 (Gopher), table A1.

For Chinese, n words are taken for 2n characters, as a Chinese word has 1.5 on average.

Legend: W words · G n-grams, one from each word on but the last n - 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from data import word_hashes
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
    found = word_hashes.find_words(text)
    scale = 2 if is_chinese(found.classes) else 1
    lengths_W = found.ends - found.starts
    lengths = [n * scale for n in (*MOST_FREQUENT, *REPEATED)]
    limits = [*MOST_FREQUENT.values(), *REPEATED.values()]
    for n, most, hashes_G in zip(
        lengths, limits, word_hashes.ngrams_of_lengths(found.hashes, lengths), strict=True
    ):
        first_G = _first_of_each(hashes_G)
        if len(first_G) == len(hashes_G):
            break  # no n-gram occurs twice, so no longer one does
        if n // scale in MOST_FREQUENT:
            if most_frequent_share(hashes_G, lengths_W, n) > most:
                return Dropped(f'Gopher: one {n // scale}-gram too often')
        else:
            share = repeated_share(first_G, lengths_W, n)
            if share > most:
                return Dropped(f'Gopher: repeated {n // scale}-grams')
            if share <= limits[-1]:
                break  # words of a longer n-gram that stood before are all of shorter ones that did
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


def _first_of_each(hashes_G: np.ndarray) -> np.ndarray:
    """Returns the first place of each n-gram, int64."""
    return np.unique(hashes_G, return_index=True)[1]


def most_frequent_share(hashes_G: np.ndarray, lengths_W: np.ndarray, n: int) -> float:
    """Returns the share of the words' characters in the n-gram that occurs most often, if at least twice.

    Of several that occur as often, the longest counts.
    """
    _, first, counts = np.unique(hashes_G, return_index=True, return_counts=True)
    most = counts.max(initial=0)
    if most < 2:
        return 0.0
    ends_W = np.concatenate([[0], np.cumsum(lengths_W)])
    often = first[counts == most]
    return float(most * (ends_W[often + n] - ends_W[often]).max() / ends_W[-1])


def repeated_share(first_G: np.ndarray, lengths_W: np.ndarray, n: int) -> float:
    """Returns the share of the words' characters in n-grams that stood before, each character once.

    first_G: the first place of each n-gram; all others stood before.
    """
    repeated_G = np.ones(len(lengths_W) - n + 1, np.int64)
    repeated_G[first_G] = 0
    steps = np.zeros(len(lengths_W) + 1, np.int64)
    steps[: len(repeated_G)] += repeated_G
    steps[n : n + len(repeated_G)] -= repeated_G
    covered_W = np.cumsum(steps[:-1]) > 0
    return float(lengths_W[covered_W].sum() / lengths_W.sum())
