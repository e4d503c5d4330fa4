"""Text to token ids and back: what every tokenizer offers, whoever made it, and how one is found on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.errors import UserError
from data import sentencepiece_export, tokenizer_files
from data.fast_tokenizer import FastTokenizer
from data.sentencepiece_tokenizer import SentencePieceTokenizer
from data.word_tokenizer import WordTokenizer


class Tokenizer(Protocol):
    """What callers may rely on.

    Attributes: vocab_size (the largest id + 1); pad_id, bos_id, eos_id (ids, not always different: GPT-2
    has one symbol for all three); mask_id (None if there is none); sentinel_ids (int32 [n]: the ids of
    <extra_id_0>, <extra_id_1>, …, in this order); chat_template (Jinja, None if there is none);
    fingerprint (SHA-256, hex, of the bytes that determine it).
    """

    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_id: int | None
    sentinel_ids: np.ndarray
    chat_template: str | None
    fingerprint: str

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without begin and end symbols; UserError for lone surrogates."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text; the faster way for many."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text as a document: begin symbol, text, end symbol."""
        ...

    def encode_prompt(self, text: str) -> np.ndarray:
        """Returns the int32 ids of what a model is asked to continue, as it was trained to see them."""
        ...

    def encode_marked(self, text: str) -> np.ndarray:
        """Returns the int32 ids of a text with symbols written by name, such as <mask> or <extra_id_0>.

        Begin and end symbols are not added. Both names of the mask, <mask> and [MASK], are understood.
        """
        ...

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns int32 ids [T] as `encode` does, and where each stands in `text`: int32 [T, 2].

        Characters start … end - 1. Tokens that are bytes of one character share its place.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; special tokens are skipped, and ids past the vocabulary."""
        ...

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [vocab_size]: the UTF-8 bytes each token stands for, 0 for special tokens."""
        ...

    def word_starts(self) -> np.ndarray:
        """Returns bool [vocab_size]: whether a token begins a word, as far as it alone can tell.

        False for what goes on with a word: letters without a space before them, and WordPiece's
        '##' pieces. True for all else: digits, punctuation, Chinese characters and kana begin words
        of their own, and special tokens do. A word that follows a special token, a line's end or
        punctuation has no space in its first token either; callers that know what stands before it
        may count it as a beginning.
        """
        ...

    def apply_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Returns the prompt for an answer to `messages`; UserError without a chat template."""
        ...

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the files it was loaded from into `directory`, in place of another tokenizer's."""
        ...


def load(path: str | os.PathLike) -> Tokenizer:
    """Returns the tokenizer in a directory, or in a SentencePiece .model file.

    Of several in one directory the first of tokenizer.json, vocab.json with merges.txt, vocab.txt
    (WordPiece), spiece.model (T5), tokenizer.model and words.json is taken. Raises UserError if there is
    none, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        model_files = tokenizer_files.find(path)
        if not model_files:
            raise UserError(
                f'no tokenizer at {path}: expected {tokenizer_files.EXPECTED}. Give the directory of one, or '
                'let prepare.py with the same --config write it.'
            )
        if model_files == (tokenizer_files.WORDS,):
            files = tokenizer_files.read(path, model_files)
            return WordTokenizer(files[tokenizer_files.WORDS], str(path / tokenizer_files.WORDS))
        if model_files != (tokenizer_files.SENTENCEPIECE,):
            return FastTokenizer(tokenizer_files.read(path, model_files), str(path))
        path /= tokenizer_files.SENTENCEPIECE
    try:
        return SentencePieceTokenizer(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(
            f'no tokenizer at {path} ({error.strerror}). prepare.py with the same --config writes one.'
        ) from error


def export(tokenizer: Tokenizer, directory: str | os.PathLike) -> None:
    """Writes a tokenizer into `directory` in a form that transformers loads.

    What was loaded from such files is written as it was; a SentencePiece model as tokenizer.json.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        tokenizer_files.write(directory, sentencepiece_export.files(tokenizer.model))
    else:
        tokenizer.save(directory)
