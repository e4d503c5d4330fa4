"""Text to words: runs of letters and digits, and Chinese cut by jieba's dictionary.

Punctuation and symbols are no words. An apostrophe within a word belongs to it: don't, l'homme.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

HAN = '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af'  # the CJK ideographs of Unicode 15
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
CHINESE_OR_NOT = re.compile(f"([{HAN}]+)|[^{HAN}']+(?:'[^{HAN}']+)*")


def split(text: str, *, lowercase: bool) -> list[str]:
    """Returns the words of a text, in Unicode's form NFKC (full-width 1 is 1), typographic apostrophes plain.

    Runs of Chinese characters are cut into words by jieba's dictionary, and its hidden Markov model for
    what is not in it; rjieba is jieba in Rust.
    """
    if lowercase:
        text = text.lower()
    if text.isascii():
        return WORD.findall(text)
    text = unicodedata.normalize('NFKC', text).replace('’', "'")
    return [part for word in WORD.findall(text) for part in ((word,) if word.isascii() else _cut(word))]


def _cut(word: str) -> Iterator[str]:
    """Yields the words within a run of letters and digits."""
    import rjieba  # reads its dictionary: most of what starting prepare.py would take

    for run in CHINESE_OR_NOT.finditer(word):
        if run[1]:
            yield from rjieba.cut(run[1])
        else:
            yield run[0]
