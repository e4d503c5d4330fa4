"""Words and their vectors, in the formats of word2vec (text, binary) and GloVe (text).

word2vec's files begin with a line 'V D'; GloVe's have none. A text line is the word and D numbers; a binary
entry is the word, a space, and D little-endian float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from configs.errors import UserError, choose, did_you_mean
from data.files import written_whole

FORMATS = ('word2vec', 'word2vec-binary', 'glove')
MOST_SUGGESTED = 50_000  # words among which a mistyped one is looked for


class WordVectors:
    """Words, the most frequent first where that is known, and their vectors.

    words: different strings; vectors: float32 [V, D].
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray):
        self.words, self.vectors = tuple(words), vectors
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def units(self) -> np.ndarray:
        """The vectors divided by their lengths, float32 [V, D]; a vector of zeros stays one."""
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(lengths > 0, lengths, 1.0).astype(np.float32)

    def id_of(self, word: str) -> int:
        """Returns a word's number: as it is written, as a token with the sign for a space, or in lower case.

        Raises UserError for an unknown word.
        """
        for form in (word, f'\u2581{word}', word.lower(), f'\u2581{word.lower()}'):
            if form in self.ids:
                return self.ids[form]
        raise UserError(
            f'{word!r} is none of the {len(self):,} words.{did_you_mean(word, self.words[:MOST_SUGGESTED])} '
            'Give words of its vocabulary.'
        )


def read(path: Path) -> WordVectors:
    """Reads a file in any of FORMATS; of a word that comes twice the first vector counts, as in gensim.

    Raises UserError for a file that is damaged or none of these.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}. Give a file of word vectors.') from error
    header, _, rest = content.partition(b'\n')
    fields = header.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        count, width = map(int, fields)
        if not count or not width:
            raise UserError(f'{path} says it holds {count} vectors of {width} numbers; it is empty.')
        if _is_text(rest, width):
            words, rows = _read_text(path, rest, width, line=2)
        else:
            words, rows = _read_binary(path, rest, count, width)
        if len(words) != count:
            raise UserError(
                f'{path} says it holds {count} vectors, and has {len(words)}: it is damaged. Copy it anew.'
            )
    else:
        words, rows = _read_text(path, content, len(fields) - 1, line=1)
    first: dict[str, int] = {}
    for number, word in enumerate(words):
        first.setdefault(word, number)
    vectors = np.ascontiguousarray(rows[list(first.values())] if len(first) < len(words) else rows)
    if not np.isfinite(vectors).all():
        bad = list(first)[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise UserError(f'{path}: the vector of {bad!r} is not finite. Copy the file anew.')
    return WordVectors(list(first), vectors)


def _is_text(content: bytes, width: int) -> bool:
    """Whether the first line is a word and `width` numbers."""
    try:
        numbers = content.partition(b'\n')[0].decode('ascii', 'replace').rsplit(maxsplit=width)[-width:]
        return len(numbers) == width and all(np.isreal(float(number)) for number in numbers)
    except ValueError:
        return False


def _read_text(path: Path, content: bytes, width: int, line: int) -> tuple[list[str], np.ndarray]:
    """Reads entries of which the first stands on `line`: GloVe's words, from line 1 on, may hold spaces."""
    lines = content.decode('utf-8', 'replace').removesuffix('\n').split('\n')
    if width < 1:
        raise UserError(
            f'{path} begins with {lines[0][:60]!r}, which is neither a count and a width nor a word and its '
            "vector. Expected a file in word2vec's or GloVe's format."
        )
    words, rows = [], np.empty((len(lines), width), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # NumPy warns of what is no number, and goes on
        for number, entry in enumerate(lines):
            word, *numbers = entry.rstrip(' \r').rsplit(' ', width)
            try:
                if len(numbers) != width or (line > 1 and ' ' in word):
                    raise ValueError(f'{len(entry.split()) - 1} numbers')
                rows[number] = np.array(numbers, np.float32)
            except ValueError as error:
                raise UserError(
                    f'{path}, line {number + line}: expected a word and {width} numbers, found '
                    f'{entry[:60]!r} ({error}). It is damaged, or no file of word vectors; copy it anew.'
                ) from error
            words.append(word)
    return words, rows


def _read_binary(path: Path, content: bytes, count: int, width: int) -> tuple[list[str], np.ndarray]:
    words, rows, at = [], np.empty((min(count, len(content)), width), np.float32), 0
    for number in range(count):
        begin, space = at, content.find(b' ', at)
        at = space + 1 + 4 * width
        if space < 0 or at > len(content):
            raise UserError(
                f'{path} says it holds {count} vectors of {width} numbers, and ends within that of number '
                f'{number + 1}: it is damaged. Copy it anew.'
            )
        # Some programs end an entry with a newline, some do not; no word begins with one.
        words.append(content[begin:space].lstrip(b'\n').decode('utf-8', 'replace'))
        rows[number] = np.frombuffer(content, '<f4', width, space + 1)
    return words, rows


def write(path: Path, vectors: WordVectors, file_format: str) -> None:
    """Writes vectors, whole or not at all; numbers in text have the nine digits that restore a float32."""
    choose('format', file_format, FORMATS)
    for word in vectors.words:
        if not word or any(character in word for character in ' \n\t\r'):
            raise UserError(f'the word {word!r} is empty or holds white space, which no vector file can.')
    with written_whole(path) as file:
        if file_format != 'glove':
            file.write('{} {}\n'.format(*vectors.vectors.shape).encode())
        for word, vector in zip(vectors.words, vectors.vectors, strict=True):
            if file_format == 'word2vec-binary':
                file.write(word.encode() + b' ' + vector.astype('<f4').tobytes() + b'\n')
            else:
                numbers = ' '.join(format(number, '.9g') for number in vector.tolist())
                file.write(f'{word} {numbers}\n'.encode())
