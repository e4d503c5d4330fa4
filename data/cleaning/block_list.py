"""Words and phrases that no document may hold."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from configs.errors import UserError
from data.cleaning.steps import Dropped


def hold_none(path: str, text: str) -> str | Dropped:
    """Drops texts with a word or phrase of the list in file `path`, whatever its case."""
    lowered = text.lower()
    for last, phrase in _automaton(path).iter(lowered):
        first = last + 1 - len(phrase)
        if _is_bound(lowered, first - 1, first) and _is_bound(lowered, last + 1, last):
            return Dropped('on the block list')
    return text


def _is_bound(text: str, outside: int, inside: int) -> bool:
    """Whether a word ends between two neighbouring characters; Chinese is written without ends."""
    if not 0 <= outside < len(text):
        return True
    return not (_in_word(text[outside]) and _in_word(text[inside]))


def _in_word(character: str) -> bool:
    return character.isalnum() and character < '\u0e00'


@lru_cache(maxsize=2)
def _automaton(path: str):
    """Returns the automaton (Aho & Corasick 1975) of the phrases in a file; UserError if there are none."""
    import ahocorasick

    phrases = read_phrases(path)
    automaton = ahocorasick.Automaton()
    for phrase in phrases:
        automaton.add_word(phrase, phrase)
    automaton.make_automaton()
    return automaton


def read_phrases(path: str) -> list[str]:
    """Returns the phrases in a file, one a line, in lower case; lines that begin with '#' are comments."""
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'data.cleaning.block_list={path!r} cannot be read ({error}). Give a UTF-8 file with a word or '
            'phrase a line.'
        ) from error
    phrases = [line.strip().lower() for line in lines if line.strip() and not line.startswith('#')]
    if not phrases:
        raise UserError(f'data.cleaning.block_list={path!r} holds no phrase. Write one a line.')
    return phrases
