"""What the pieces of a vocabulary are for, whoever made it: masks, sentinels, and where words begin."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import count, takewhile

import numpy as np

MASKS = ('<mask>', '[MASK]')  # stands in a text for a token to be guessed (Devlin et al. 2019)
SENTINEL = '<extra_id_{}>'  # stands in a text for a span that was cut out (Raffel et al. 2020)
SYMBOL = r'<mask>|\[MASK\]|<extra_id_\d+>'  # any of them, as a regular expression
# Letters of scripts that put no spaces between words, by the beginnings of their Unicode names.
UNSPACED = ('CJK', 'IDEOGRAPHIC', 'HIRAGANA', 'KATAKANA', 'HALFWIDTH KATAKANA', 'BOPOMOFO')


def sentinel_ids(id_of: Callable[[str], int | None]) -> np.ndarray:
    """Returns int32 [n]: the ids of <extra_id_0> … <extra_id_n-1>, in this order; n is 0 if there is none.

    id_of: the id of a piece, None for what is no piece. mT5's begin with the sign for a space.
    """
    for name in (SENTINEL, '\u2581' + SENTINEL):
        ids = (id_of(name.format(number)) for number in count())
        if found := list(takewhile(lambda token: token is not None, ids)):
            return np.array(found, np.int32)
    return np.zeros(0, np.int32)


def begins_word(text: bytes) -> bool:
    """Whether a token that stands for `text`, UTF-8 that may be cut anywhere, begins a word.

    It does unless its first character is a letter, or a mark upon one, of a script that puts spaces
    between words. A character that is cut is judged by its first byte; its other bytes begin nothing.
    """
    if not text:
        return True
    character = text.decode(errors='ignore')[:1]
    if character and text.startswith(character.encode()):
        name = unicodedata.name(character, '')
        return unicodedata.category(character)[0] not in 'LM' or name.startswith(UNSPACED)
    # 0x80–0xBF go on with a character. 0xC2–0xE1 begin U+0080–U+1FFF and 0xEA–0xEE U+A000–U+EFFF, mostly
    # letters, the Korean syllables among them; the rest begin symbols, kana and ideographs.
    return not (0x80 <= text[0] <= 0xE1 or 0xEA <= text[0] <= 0xEE)
