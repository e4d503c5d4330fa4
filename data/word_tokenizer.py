"""Words as tokens, with their counts: what Word2Vec and GloVe learn from.

Ids: pad 0, begin 1 and end 2 of a document, then the words, the most frequent first. A word outside
the vocabulary has no id and is left out, so that its neighbours come together, as in word2vec.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import UserError
from data import chat, tokenizer_files, words
from data.text import lone_surrogate

SPECIAL = ('<pad>', '<s>', '</s>')
FORMAT = 1


class WordTokenizer:
    """A vocabulary of words; data/tokenizer.py says what it offers. Fingerprint: the file's SHA-256.

    words: str by id, the special ones included; counts: int64 [vocab_size], how often each occurs in the
    text it was made from, 0 for special ones; ids: {word: id}.
    Raises UserError if the bytes are no such vocabulary.
    """

    def __init__(self, content: bytes, origin: str = 'the tokenizer'):
        self._content, self._origin = content, origin
        try:
            saved = json.loads(content)
            if saved['format'] != FORMAT:
                raise ValueError(f'format {saved["format"]}, expected {FORMAT}')
            self.words: tuple[str, ...] = (*SPECIAL, *saved['words'])
            self.counts = np.array([*[0] * len(SPECIAL), *saved['counts']], np.int64)
            self._lowercase: bool = saved['lowercase']
            self._phrases = {tuple(pair) for pair in saved['phrases']}
            if len(self.words) != len(self.counts):
                raise ValueError(f'{len(self.words)} words with {len(self.counts)} counts')
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{origin} is no vocabulary of words ({type(error).__name__}: {error}). Copy it anew, or let '
                'prepare.py with the same --config write it.'
            ) from error
        self.ids = {word: number for number, word in enumerate(self.words) if number >= len(SPECIAL)}
        self.vocab_size = len(self.words)
        self.pad_id, self.bos_id, self.eos_id = range(3)
        self.mask_id: int | None = None
        self.sentinel_ids = np.zeros(0, np.int32)
        self.chat_template: str | None = None
        self.fingerprint = hashlib.sha256(content).hexdigest()

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the vocabulary into `directory`, in place of another tokenizer's files."""
        tokenizer_files.write(directory, {tokenizer_files.WORDS: self._content})

    def split(self, text: str) -> list[str]:
        """Returns the words of a text, phrases joined, those outside the vocabulary included."""
        return join_phrases(words.split(text, lowercase=self._lowercase), self._phrases)

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of the known words of `text`; UserError for lone surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of the known words of each text."""
        return [np.array(self._ids_of(text), np.int32) for text in texts]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text as a document: begin symbol, known words, end symbol."""
        return [np.array([self.bos_id, *self._ids_of(text), self.eos_id], np.int32) for text in texts]

    def encode_prompt(self, text: str) -> np.ndarray:
        """Returns the int32 ids of the start of a document that begins with `text`."""
        return np.array([self.bos_id, *self._ids_of(text)], np.int32)

    def encode_marked(self, text: str) -> np.ndarray:
        """Returns the int32 ids of the known words; there are no symbols to be written by name."""
        return self.encode(text)

    def _ids_of(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from error
        found = map(self.ids.get, self.split(text))
        return [number for number in found if number is not None]

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Raises UserError: words are found in a text that has been changed."""
        raise UserError(f'a vocabulary of words cannot say where its words stand in {text[:40]!r}.')

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the words of `ids` with spaces between; special ids are skipped, and ids past the end."""
        known = range(len(SPECIAL), self.vocab_size)
        return ' '.join(self.words[int(number)] for number in ids if int(number) in known)

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [vocab_size]: the UTF-8 bytes of each word, 0 for special ones."""
        sizes = [len(word.encode()) for word in self.words[len(SPECIAL) :]]
        return np.array([*[0] * len(SPECIAL), *sizes], np.int32)

    def word_starts(self) -> np.ndarray:
        """Returns bool [vocab_size], all True: every token is a word."""
        return np.ones(self.vocab_size, bool)

    def apply_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Raises UserError: a vocabulary of words has no chat template."""
        return chat.render(self.chat_template, messages, {}, self._origin)


def serialise(
    counts: Sequence[tuple[str, int]], *, lowercase: bool, phrases: Sequence[tuple[str, str]]
) -> bytes:
    """Returns the file of a vocabulary: `counts` are (word, occurrences), in the order of their ids."""
    content = {
        'format': FORMAT,
        'lowercase': lowercase,
        'phrases': phrases,
        'words': [word for word, _ in counts],
        'counts': [count for _, count in counts],
    }
    return json.dumps(content, ensure_ascii=False, separators=(',', ':')).encode()


def join_phrases(found: list[str], phrases: set[tuple[str, ...]]) -> list[str]:
    """Returns the words with those neighbours joined by '_' that are in `phrases`, from left to right."""
    if not phrases:
        return found
    joined: list[str] = []
    last = None  # the word before, unless it is part of a phrase already
    for word in found:
        if (last, word) in phrases:
            joined[-1] = f'{last}_{word}'
            last = None
        else:
            joined.append(word)
            last = word
    return joined
