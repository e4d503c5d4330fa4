"""Tokenizers of published models: BPE (of bytes: GPT-2; else: LLaMA), WordPiece (BERT), unigram (T5).

The `tokenizers` library does the work; the ids are those that transformers gives for the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend

from configs.errors import UserError
from data import chat, pieces, tokenizer_files
from data.text import lone_surrogate
from data.vocabulary import read_vocabulary

SPACE_SIGN = '\u2581'
BYTE_PIECE = re.compile('<0x[0-9A-F]{2}>')
# Byte-level BPE spells printable bytes as themselves, and the others as U+0100, U+0101, … in their order.
PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTE_OF = {chr(byte): byte for byte in PRINTABLE}
BYTE_OF |= {chr(0x100 + n): byte for n, byte in enumerate(sorted({*range(0x100)} - {*PRINTABLE}))}


class FastTokenizer:
    """A tokenizer made of the files that transformers publishes; see data/tokenizer.py for what it offers.

    Args:
      files: {name: bytes}, as `tokenizer_files.read` gives them.
      origin: the directory they come from, for messages.

    Raises UserError for files that are broken, or that do not say which token ends a text.
    """

    def __init__(self, files: Mapping[str, bytes], origin: str = 'the tokenizer'):
        self._files, self._origin = dict(files), origin
        vocabulary = read_vocabulary(files, origin)
        self._backend, self._names = vocabulary.backend, vocabulary.names
        ids = vocabulary.ids
        end = ids.get('eos', ids.get('sep'))
        if end is None:
            raise UserError(
                f'{origin} does not say which token ends a text: expected eos_token (or sep_token) in '
                'tokenizer_config.json or special_tokens_map.json, or eos_token_id in config.json. Copy '
                'these files from where it was published, or write {"eos_token": "…"} into the first.'
            )
        self.vocab_size: int = vocabulary.size
        self.eos_id: int = end
        self.bos_id: int = ids.get('bos', ids.get('cls', end))
        self.pad_id: int = ids.get('pad', end)
        self.mask_id: int | None = ids.get('mask')
        self.sentinel_ids: np.ndarray = pieces.sentinel_ids(self._backend.token_to_id)
        self.chat_template: str | None = chat.find_template(files, origin)
        self.fingerprint: str = self._fingerprint()

    def _fingerprint(self) -> str:
        """The model's own files count only by the ids that they give: they change for other reasons."""
        digest = hashlib.sha256()
        for name in sorted(self._files.keys() - set(tokenizer_files.OF_THE_MODEL)):
            digest.update(f'{name} {len(self._files[name])}\n'.encode() + self._files[name])
        digest.update(f'{self.bos_id} {self.eos_id} {self.pad_id}'.encode())
        return digest.hexdigest()

    def save(self, directory: str | os.PathLike) -> None:
        """Copies the files it was loaded from into `directory`, in place of another tokenizer's.

        The model's config.json and generation_config.json are among them: an export that has its own
        writes them afterwards.
        """
        tokenizer_files.write(directory, self._files)

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without begin and end symbols; UserError for lone surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text; the faster way for many."""
        return self._encode(texts, add_special_tokens=False)

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text as a document: begin symbol, text, end symbol."""
        begin, end = np.array([self.bos_id], np.int32), np.array([self.eos_id], np.int32)
        return [np.concatenate([begin, ids, end]) for ids in self.encode_batch(texts)]

    def encode_prompt(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text` as its model is used to it: after bos for LLaMA, bare for GPT-2."""
        return self._encode([text], add_special_tokens=True)[0]

    def encode_marked(self, text: str) -> np.ndarray:
        """Returns the int32 ids of a text with symbols written by name, without begin and end symbols."""
        for name in pieces.MASKS:
            text = text.replace(name, self._names.get('mask', name))
        return self.encode(text)

    def _encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[np.ndarray]:
        try:
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except TypeError:
            for text in texts:
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise lone_surrogate(error) from error
            raise
        return [np.array(encoding.ids, np.int32) for encoding in encoded]

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns int32 ids [T], and the characters [T, 2] of `text` that each stands for."""
        self.encode('' if text.isascii() else text)  # which knows what to say of lone surrogates
        encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; broken UTF-8 becomes U+FFFD.

        Special tokens are skipped, and ids past the vocabulary, which a model has whose table is padded.
        """
        return self._backend.decode([int(i) for i in ids if i < self.vocab_size], skip_special_tokens=True)

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [vocab_size]: the UTF-8 bytes each token stands for, 0 for special tokens.

        A WordPiece counts without its '##', and the spaces between words, which it forgets, for nothing.
        """
        sizes = np.zeros(self.vocab_size, np.int32)
        for token, (text, _) in self._texts().items():
            sizes[token] = len(text)
        return sizes

    def word_starts(self) -> np.ndarray:
        """Returns bool [vocab_size]: whether a token begins a word; see data/tokenizer.py."""
        starts = np.ones(self.vocab_size, bool)
        for token, (_, begins) in self._texts().items():
            starts[token] = begins
        return starts

    def _texts(self) -> dict[int, tuple[bytes, bool]]:
        """Returns {id: (UTF-8 it stands for, whether it begins a word)} of all but special tokens."""
        added = self._backend.get_added_tokens_decoder()
        steps = list(_decoding(self._backend))
        texts = {}
        for piece, token in self._backend.get_vocab(with_added_tokens=True).items():
            if token not in added:
                texts[token] = _text_of(piece, steps)
            elif not added[token].special:
                texts[token] = piece.encode(), pieces.begins_word(piece.encode())
        return texts

    def apply_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Returns the prompt for an answer to `messages`; UserError without a chat template."""
        tokens = {f'{role}_token': name for role, name in self._names.items()}
        return chat.render(self.chat_template, messages, tokens, self._origin)


def _decoding(backend: Backend) -> Iterator[dict[str, Any]]:
    """Yields the steps by which pieces become text, such as {'type': 'WordPiece', 'prefix': '##', …}."""
    if backend.decoder is None:
        return
    left = [json.loads(backend.decoder.__getstate__())]
    while left:
        step = left.pop(0)
        if step['type'] == 'Sequence':
            left = step['decoders'] + left
        else:
            yield step


def _text_of(piece: str, steps: Sequence[Mapping[str, Any]]) -> tuple[bytes, bool]:
    """Returns the UTF-8 that `piece` stands for, decoded by `steps`, and whether it begins a word."""
    for step in steps:
        if step['type'] == 'WordPiece':
            text = piece.removeprefix(step['prefix'])
            return text.encode(), text == piece
    text = _decoded(piece, steps)
    return text, pieces.begins_word(text)


def _decoded(piece: str, steps: Sequence[Mapping[str, Any]]) -> bytes:
    for step in steps:
        if step['type'] == 'ByteLevel' and BYTE_OF.keys() >= set(piece):
            return bytes(BYTE_OF[character] for character in piece)
        if step['type'] == 'ByteFallback' and BYTE_PIECE.fullmatch(piece):
            return bytes.fromhex(piece[3:5])
        if step['type'] in ('Metaspace', 'Replace'):
            piece = piece.replace(SPACE_SIGN, ' ')
    return piece.encode()
