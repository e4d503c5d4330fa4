"""Exact match and F1 of short answers, by the rules of SQuAD's evaluation (Rajpurkar et al. 2016, 2018).

Lower case, no punctuation, no English articles, single spaces; the best of several references counts; no
answer is right only where there is none. Chinese, Japanese and Korean characters are tokens of their own, as
in CMRC 2018 (Cui et al. 2019).
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Sequence

ARTICLES = re.compile(r'\b(?:a|an|the)\b')
PUNCTUATION = frozenset(string.punctuation + '。，、；：？！“”‘’（）《》【】…—·「」『』')
IDEOGRAPH = re.compile(r'([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af])')


def normalise(text: str) -> str:
    """Returns the text as it is compared."""
    text = ''.join(character for character in text.lower() if character not in PUNCTUATION)
    return ' '.join(ARTICLES.sub(' ', text).split())


def tokens(text: str) -> list[str]:
    """Returns the words of a text as it is compared, and ideographs one by one."""
    return IDEOGRAPH.sub(r' \1 ', normalise(text)).split()


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Returns 1.0 if the answer is one of the references; no references: if it is empty."""
    return float(any(normalise(answer) == normalise(reference) for reference in references or ['']))


def f1(answer: str, references: Sequence[str]) -> float:
    """Returns the best F1 of the answer's tokens with a reference's; no references: 1.0 if it is empty."""
    return max(_f1(tokens(answer), tokens(reference)) for reference in references or [''])


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = sum((collections.Counter(answer) & collections.Counter(reference)).values())
    return 2 * common / (len(answer) + len(reference))
