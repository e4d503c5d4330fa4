"""Filters by length and by the rules of Gopher and C4, with their counterparts for Chinese.

Gopher: Rae et al. 2021, appendix A.1.1, quality filtering. C4: Raffel et al. 2020, section 2.2. Neither
says anything of Chinese. There a character is taken for a word, and two thirds of the bounds' ratio to
it, since a Chinese word has 1.5 characters on average: what counts words, counts 1.5 times as many.
"""

from __future__ import annotations

import re

import numpy as np

from data import word_hashes
from data.cleaning.steps import Dropped

CHARACTERS_A_WORD = 1.5  # of Chinese
# Gopher
FEWEST_WORDS, MOST_WORDS = 50, 100_000
WORD_LENGTH = (3, 10)  # mean; not asked of Chinese
MOST_SYMBOLS = 0.1  # hashes, or ellipses, per word
MOST_BULLETS, MOST_ELLIPSES = 0.9, 0.3  # shares of lines
LEAST_ALPHABETIC = 0.8  # share of words with a letter
STOP_WORDS = {'the', 'be', 'to', 'of', 'and', 'that', 'have', 'with'}
CHINESE_STOP_WORDS = frozenset('的是了在不和有这')  # among the most frequent characters of any Chinese text
LEAST_STOP_WORDS = 2
BULLETS = ('•', '-', '*', '·', '●', '‣', '▪', '■', '◦')
ELLIPSES = ('...', '…', '……')
# C4
FEWEST_IN_LINE = 5  # words
FEWEST_SENTENCES = 3
LINE_ENDS = ('.', '!', '?', '"', '”', "'", '’', '。', '！', '？', '」', '』', '；')
SENTENCE_END = re.compile(r'[.!?]["”\'’)]*(?=\s|$)|[。！？]')
POLICIES = (
    'terms of use',
    'privacy policy',
    'cookie policy',
    'uses cookies',
    'use of cookies',
    'use cookies',
)
CITATION = re.compile(r'\[(?:[0-9]{1,3}|edit|citation needed)\]')


def is_chinese(classes_C: np.ndarray) -> bool:
    """Whether most letters stand alone: Chinese, but Japanese and Thai too. classes_C: of word_hashes."""
    counts = np.bincount(classes_C, minlength=5)
    return bool(counts[word_hashes.ALONE] > counts[word_hashes.LETTER])


def bound_length(fewest: int, most: int, text: str) -> str | Dropped:
    """Drops texts of fewer or more characters; most 0: any number."""
    if len(text) < fewest:
        return Dropped(f'fewer than {fewest} characters')
    return Dropped(f'more than {most} characters') if most and len(text) > most else text


def bound_symbols(most: float, text: str) -> str | Dropped:
    """Drops texts of whose characters, white space aside, more than a share are no letters and no digits."""
    counts = np.bincount(word_hashes.classify(word_hashes.code_points(text)), minlength=5)
    total = counts.sum() - counts[word_hashes.SPACE]
    return Dropped(f'more than {most:.0%} symbols') if counts[word_hashes.SYMBOL] > most * total else text


def gopher_quality(ask_stop_words: bool, text: str) -> str | Dropped:
    """Drops texts that break one of Gopher's rules.

    ask_stop_words: also the one that only suits English and Chinese.
    """
    classes_C = word_hashes.classify(word_hashes.code_points(text))
    chinese = is_chinese(classes_C)
    starts_W, letters = _space_delimited(classes_C)
    number = len(starts_W)
    scale = CHARACTERS_A_WORD if chinese else 1
    if number < FEWEST_WORDS * scale:
        return Dropped('Gopher: too few words')
    if number > MOST_WORDS * scale:
        return Dropped('Gopher: too many words')
    length = (len(classes_C) - np.count_nonzero(classes_C == word_hashes.SPACE)) / number
    if not chinese and not WORD_LENGTH[0] <= length <= WORD_LENGTH[1]:
        return Dropped('Gopher: mean word length')
    ellipses = text.count('…') + text.count('...')
    if max(text.count('#'), ellipses) > MOST_SYMBOLS * number / scale:
        return Dropped('Gopher: symbols per word')
    if letters < LEAST_ALPHABETIC * number:
        return Dropped('Gopher: words without letters')
    if ask_stop_words and not _has_stop_words(text, chinese):
        return Dropped('Gopher: stop words')
    return _gopher_lines(text)


def _gopher_lines(text: str) -> str | Dropped:
    lines = [line.strip() for line in text.split('\n') if line and not line.isspace()]
    if sum(line.startswith(BULLETS) for line in lines) > MOST_BULLETS * len(lines):
        return Dropped('Gopher: bullets')
    if sum(line.endswith(ELLIPSES) for line in lines) > MOST_ELLIPSES * len(lines):
        return Dropped('Gopher: ellipses at ends of lines')
    return text


def _has_stop_words(text: str, chinese: bool) -> bool:
    if chinese:
        return len(CHINESE_STOP_WORDS.intersection(text)) >= LEAST_STOP_WORDS
    return len(STOP_WORDS.intersection(text.lower().split())) >= LEAST_STOP_WORDS


def _space_delimited(classes_C: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns where words between white space start, int64 [W], and how many of them hold a letter.

    Characters that are words alone are here too, and punctuation beside them belongs to none.
    """
    alone_C = classes_C == word_hashes.ALONE
    text_C = classes_C != word_hashes.SPACE
    starts_C = text_C.copy()
    starts_C[1:] &= ~(text_C[:-1] & ~alone_C[1:] & ~alone_C[:-1])
    # after a character that stands alone, punctuation begins no word
    starts_C[1:] &= ~(alone_C[:-1] & (classes_C[1:] == word_hashes.SYMBOL))
    starts_W = np.flatnonzero(starts_C)
    if not len(starts_W):
        return starts_W, 0
    lettered_W = np.logical_or.reduceat(classes_C >= word_hashes.LETTER, starts_W)
    return starts_W, int(np.count_nonzero(lettered_W))


def c4_lines(text: str) -> str | Dropped:
    """Keeps the lines that end as sentences do and say something; drops texts that C4 drops whole.

    C4's list of bad words is not in here: data.cleaning.block_list takes any.
    """
    lowered = text.lower()
    if 'lorem ipsum' in lowered:
        return Dropped('C4: lorem ipsum')
    if '{' in text:
        return Dropped('C4: curly bracket')
    text = CITATION.sub('', text)
    kept = '\n'.join(line for line in text.split('\n') if not line or _c4_keeps(line))
    kept = re.sub('\n{3,}', '\n\n', kept).strip('\n')
    if len(SENTENCE_END.findall(kept)) < FEWEST_SENTENCES:
        return Dropped('C4: too few sentences')
    return kept


def _c4_keeps(line: str) -> bool:
    line = line.strip()
    if not line.endswith(LINE_ENDS) or line.endswith('...'):
        return False
    lowered = line.lower()
    if 'javascript' in lowered or any(policy in lowered for policy in POLICIES):
        return False
    if line.isascii():
        return len(line.split()) >= FEWEST_IN_LINE
    classes_C = word_hashes.classify(word_hashes.code_points(line))
    scale = CHARACTERS_A_WORD if is_chinese(classes_C) else 1
    return len(_space_delimited(classes_C)[0]) >= FEWEST_IN_LINE * scale
