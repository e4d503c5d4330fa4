"""Text to token ids and back: SentencePiece, trained so that every string survives the round trip.

No normalisation, no added or removed spaces, and a piece for each of the 256 bytes: what has no
piece of its own is spelt in UTF-8 bytes. The one character that SentencePiece itself would
change, its own sign for a space (U+2581), is cut out beforehand and spelt in bytes too.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sentencepiece

from configs.errors import UserError, choose
from data import chat, pieces, tokenizer_files
from data.text import lone_surrogate

SPACE_SIGN = '\u2581'
CHUNK = 4096  # characters encoded at a time: bounded memory, and BPE slows down on longer texts
TRAINING_THREADS = 8  # fixed, because the number of threads changes the model that training finds


class SentencePieceTokenizer:
    """A SentencePiece model; data/tokenizer.py says what it offers. Fingerprint: the model's SHA-256.

    Raises UserError if the bytes are no model, or one without begin and end symbols.
    """

    def __init__(self, model: bytes, origin: str = 'the tokenizer'):
        self.model, self._origin = model, origin
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f'{origin} is no SentencePiece model: {error}. Give a .model file or a directory with '
                "a tokenizer in it, or leave tokenizer.path='' to train one."
            ) from error
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        # Models such as LLaMA's have no padding piece; with bytes to fall back on, none is ever unknown.
        has_padding = self._processor.pad_id() >= 0
        self.pad_id: int = self._processor.pad_id() if has_padding else self._processor.unk_id()
        masks = (self._id_of(piece) for piece in pieces.MASKS)
        self.mask_id: int | None = next((token for token in masks if token is not None), None)
        self.sentinel_ids: np.ndarray = pieces.sentinel_ids(self._id_of)
        self.chat_template: str | None = None
        self.fingerprint: str = hashlib.sha256(model).hexdigest()
        if self._processor.piece_to_id(SPACE_SIGN) == self._processor.unk_id():
            raise UserError(
                f'{origin} has no piece for a space, so it would change texts; train it with one.'
            )
        if self.bos_id < 0 or self.eos_id < 0:
            raise UserError(
                f'{origin} has no symbol for the beginning or the end of a document (bos_id={self.bos_id}, '
                f'eos_id={self.eos_id}); train it with both, or leave tokenizer.path empty to train one.'
            )

    def _id_of(self, symbol: str) -> int | None:
        token = self._processor.piece_to_id(symbol)  # that of <unk> for what is no piece
        return token if self._processor.id_to_piece(token) == symbol else None

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model into `directory`, whole or not at all, in place of another tokenizer's files."""
        tokenizer_files.write(directory, {tokenizer_files.SENTENCEPIECE: self.model})

    def encode(self, text: str) -> np.ndarray:
        """Returns the int32 ids of `text`, without begin and end symbols; UserError for lone surrogates."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text; the faster way for many."""
        return self._encode(texts, document=False)

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the int32 ids of each text as a document: begin symbol, text, end symbol."""
        return self._encode(texts, document=True)

    def encode_prompt(self, text: str) -> np.ndarray:
        """Returns the int32 ids of the start of a document that begins with `text`."""
        return np.concatenate([[self.bos_id], self.encode(text)]).astype(np.int32)

    def encode_marked(self, text: str) -> np.ndarray:
        """Returns the int32 ids of a text with symbols written by name, without begin and end symbols."""
        parts = []
        for part in re.split(f'({pieces.SYMBOL})', text):
            symbol = self.mask_id if part in pieces.MASKS else self._id_of(part)
            if re.fullmatch(pieces.SYMBOL, part) and symbol is not None:
                parts.append(np.array([symbol], np.int32))
            else:
                parts.append(self.encode(part))
        return np.concatenate(parts)

    def _encode(self, texts: Sequence[str], document: bool) -> list[np.ndarray]:
        simple = [text if len(text) <= CHUNK and SPACE_SIGN not in text else '' for text in texts]
        try:
            encoded = self._run([text.encode() for text in simple], document)
            for i, text in enumerate(texts):
                if simple[i] is not text:
                    encoded[i] = self._encode_hard(text, document)
        except UnicodeEncodeError as error:
            raise lone_surrogate(error) from error
        return encoded

    def _run(self, texts: list[bytes], document: bool = False) -> list[np.ndarray]:
        return self._processor.encode(
            texts, return_type='numpy', num_threads=1, add_bos=document, add_eos=document
        )

    def _encode_hard(self, text: str, document: bool) -> np.ndarray:
        """Encodes a text that is long or holds the sign for a space."""
        parts = []
        for i, between in enumerate(text.split(SPACE_SIGN)):
            if i > 0:
                parts.append(self._space_sign_ids)
            parts += self._run([chunk.encode() for chunk in chunks(between)])
        if document:
            parts = [np.array([self.bos_id], np.int32), *parts, np.array([self.eos_id], np.int32)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    @cached_property
    def _space_sign_ids(self) -> np.ndarray:
        spelt = [f'<0x{byte:02X}>' for byte in SPACE_SIGN.encode()]
        return np.array([self._processor.piece_to_id(piece) for piece in spelt], np.int32)

    def encode_with_spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns int32 ids [T], and the characters [T, 2] of `text` that each stands for."""
        ids = self.encode(text)
        ends = np.cumsum([len(self._bytes_of(int(token))) for token in ids], dtype=np.int64)
        sizes = [len(character.encode()) for character in text]
        character_of_byte = np.repeat(np.arange(len(text)), sizes)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        if not len(ids):
            return ids, np.zeros((0, 2), np.int32)
        spans = np.stack([character_of_byte[starts], character_of_byte[ends - 1] + 1], axis=1)
        return ids, spans.astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`; broken UTF-8 becomes U+FFFD.

        Control ids are skipped, and ids past the vocabulary, which a model has whose table is padded.
        """
        return self._processor.decode([int(i) for i in ids if i < self.vocab_size])

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [vocab_size]: the UTF-8 bytes each token stands for, 0 for control tokens."""
        return np.array([len(self._bytes_of(token)) for token in range(self.vocab_size)], np.int32)

    def word_starts(self) -> np.ndarray:
        """Returns bool [vocab_size]: whether a token begins a word; see data/tokenizer.py."""
        return np.array([pieces.begins_word(self._bytes_of(token)) for token in range(self.vocab_size)])

    def apply_chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Raises UserError: a SentencePiece model has no chat template."""
        return chat.render(self.chat_template, messages, {}, self._origin)

    def _bytes_of(self, token: int) -> bytes:
        """Returns the UTF-8 that a token stands for, none for a control token."""
        processor = self._processor
        if processor.is_control(token) or processor.is_unknown(token) or processor.is_unused(token):
            return b''
        piece = processor.id_to_piece(token)
        if processor.is_byte(token):
            return bytes.fromhex(piece[3:5])  # <0x0A>
        return piece.replace(SPACE_SIGN, ' ').encode()


def chunks(text: str, size: int = CHUNK) -> Iterator[str]:
    """Cuts `text` into pieces of at most `size` characters, where tokens are unlikely to be cut.

    After a line's end if there is one; else before a space; else anywhere.
    """
    start = 0
    while len(text) - start > size:
        end = text.rfind('\n', start, start + size) + 1
        if end <= start:
            end = text.rfind(' ', start + 1, start + size)
        if end <= start:
            end = start + size
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def train(
    texts: Iterable[str],
    *,
    kind: str,
    vocab_size: int,
    character_coverage: float = 0.9995,
    control_symbols: Sequence[str] = (),
    at_most: bool = False,
) -> SentencePieceTokenizer:
    """Trains a tokenizer; the same texts in the same order give the same bytes everywhere.

    kind: 'bpe' (Sennrich et al. 2016) or 'unigram' (Kudo 2018). Ids: pad 0, bos 1, eos 2, unk 3, the
    `control_symbols`, which stand for no text, the 256 bytes, then pieces. Raises UserError when the
    texts cannot support the vocabulary; with `at_most` it is as large as they support.
    """
    choose('tokenizer.kind', kind, ('bpe', 'unigram'))
    model = io.BytesIO()
    sentencepiece.set_min_log_level(2)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            required_chars=SPACE_SIGN,  # else a text without spaces makes a tokenizer without one
            control_symbols=list(control_symbols),
            hard_vocab_limit=not at_most,
            byte_fallback=True,
            normalization_rule_name='identity',
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * CHUNK,
            num_threads=TRAINING_THREADS,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, kind, vocab_size, 4 + len(control_symbols)) from error
    return SentencePieceTokenizer(model.getvalue())


def _sentences(texts: Iterable[str]) -> Iterator[bytes]:
    """Yields the lines of the texts, none longer than SentencePiece takes.

    It would silently drop sentences with NUL and with its signs U+2581 and U+2585: cut there.
    """
    for text in texts:
        for line in re.split('[\n\0\u2581\u2585]', text):
            for chunk in chunks(line):
                yield chunk.encode()


def _explain(error: RuntimeError, kind: str, vocab_size: int, controls: int) -> UserError:
    """Turns the trainer's message into one about config.tokenizer."""
    message = str(error)
    if found := re.search(r'Vocabulary size too high.*<= (\d+)', message):
        return UserError(
            f'tokenizer.vocab_size={vocab_size} is more than the text supports: with '
            f'tokenizer.kind={kind!r} the largest that works is {found[1]}. Lower it, or add text '
            '(data.source, tokenizer.sample_bytes).'
        )
    if found := re.search(r'smaller than required_chars. \d+ vs (\d+)', message):
        return UserError(
            f'tokenizer.vocab_size={vocab_size} is less than the smallest that works, {found[1]}: '
            f'{controls} control symbols, 256 bytes and the characters of the text. Raise it, or lower '
            'tokenizer.character_coverage, so that more characters are spelt in bytes.'
        )
    if '!sentences_.empty()' in message:
        return UserError('there is no text to train a tokenizer on. Add text to data.source.')
    return UserError(f'training the tokenizer failed: {message}')
