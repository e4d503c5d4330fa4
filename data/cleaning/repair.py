"""Repairs of characters: broken UTF-8, controls, Unicode's normal forms, Chinese scripts, white space."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

SURROGATES = re.compile('[\ud800-\udfff]')
NOT_ESCAPED = re.compile('[\ud800-\udc7f\udd00-\udfff]')  # surrogates that stand for no byte
# C0 without tab and newlines, DEL, C1 without next line, byte order mark, noncharacters.
CONTROLS = re.compile('[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]')
LINE_ENDS = re.compile('\r\n?|[\x0b\x0c\x85\u2028\u2029]')
SPACES = re.compile('[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]')
TRAILING = re.compile('[ \t]+(?=\n)')
BLANK_LINES = re.compile('\n{3,}')
HAN = re.compile('[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]')
ROUNDS = 8  # of conversion to simplified characters, which is known to need two at most


def replace_invalid(text: str) -> str:
    """Replaces what is no character by U+FFFD, as `bytes.decode(errors='replace')` does.

    text: as decoded with 'surrogateescape', so that bytes which are not UTF-8 are lone surrogates.
    """
    if not SURROGATES.search(text):
        return text
    text = NOT_ESCAPED.sub('\ufffd', text)
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def remove_controls(text: str) -> str:
    """Removes NUL and other control characters, byte order marks and noncharacters."""
    return text if text.isprintable() else CONTROLS.sub('', text)


def normalize(form: Literal['NFC', 'NFKC'], text: str) -> str:
    """Returns `text` in Unicode's normal form 'NFC', or 'NFKC', which also makes full-width forms narrow."""
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


def simplify(text: str) -> str:
    """Converts traditional Chinese characters to simplified ones, word by word (OpenCC's t2s)."""
    if not HAN.search(text):
        return text
    for _ in range(ROUNDS):
        converted = _converter().convert(text)
        if converted == text:
            break
        text = converted
    return text


@lru_cache(maxsize=1)
def _converter():
    import opencc

    return opencc.OpenCC('t2s')


def tidy_white_space(text: str) -> str:
    r"""Makes every line end '\n' and every space ' ' or a tab; none at ends of lines, no two blank lines.

    Indentation, and spaces within a line, stay as they are: in code and tables they mean something.
    """
    if not text.isascii() or '\r' in text or '\x0b' in text or '\x0c' in text:
        text = SPACES.sub(' ', LINE_ENDS.sub('\n', text))
    if ' \n' in text or '\t\n' in text:
        text = TRAILING.sub('', text)
    if '\n\n\n' in text:
        text = BLANK_LINES.sub('\n\n', text)
    return text.strip('\n').rstrip(' \t\n')
