"""The tokenizer inside a GGUF file, in the form that the tokenizers library reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from configs.errors import UserError

CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type
# How text is cut before byte-level BPE, by tokenizer.ggml.pre. Sources: the tokenizer.json files of GPT-2,
# SmolLM, Llama 3 and Qwen2. DIGITS are the most that stay together.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r'\s*[\r\n]+|\s+(?!\S)|\s+'
)


def open_reader(path: Path) -> gguf.GGUFReader:
    """Returns the library's reader, which maps the file into memory; UserError if it is no GGUF file."""
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(f'{path} is no whole GGUF file ({error}); download it again.') from error


def _cut_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), 'isolated')
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


PRE_TOKENIZERS = {
    'gpt-2': _gpt2,
    'default': _gpt2,
    'smollm': lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]),
    'llama-bpe': lambda: _cut_by(LLAMA3.replace('DIGITS', '3')),
    'qwen2': lambda: _cut_by(LLAMA3.replace('DIGITS', '1')),
}


def files(reader: gguf.GGUFReader, origin: str) -> dict[str, bytes]:
    """Returns {name: bytes} of tokenizer.json and tokenizer_config.json.

    Raises UserError for a kind of tokenizer, or a way of cutting text, that is not known.
    """

    def field(name: str, default: Any = None) -> Any:
        found = reader.fields.get(f'tokenizer.{name}')
        return default if found is None else found.contents()

    kind, cut = field('ggml.model'), field('ggml.pre', 'default')
    if kind != 'gpt2' or cut not in PRE_TOKENIZERS:
        raise UserError(
            f'{origin}: a tokenizer of kind {kind!r} that cuts text as {cut!r} is not supported, only '
            f'byte-level BPE (gpt2) with {", ".join(PRE_TOKENIZERS)}.'
        )
    pieces = field('ggml.tokens')
    merges = [tuple(merge.split(' ', 1)) for merge in field('ggml.merges')]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = PRE_TOKENIZERS[cut]()
    backend.decoder = decoders.ByteLevel()
    types = field('ggml.token_type', [])
    for kind_of, special in ((CONTROL, True), (USER_DEFINED, False)):
        named = [piece for piece, number in zip(pieces, types, strict=False) if number == kind_of]
        add = backend.add_special_tokens if special else backend.add_tokens
        add([AddedToken(piece, special=special, normalized=False) for piece in named])
    settings: dict[str, Any] = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'clean_up_tokenization_spaces': False,
    }
    for name, key in (('bos', 'bos'), ('eos', 'eos'), ('unk', 'unknown'), ('pad', 'padding')):
        token = field(f'ggml.{key}_token_id')
        if token is not None:
            settings[f'{name}_token'] = pieces[token]
    if (template := field('chat_template')) is not None:
        settings['chat_template'] = template
    return {
        'tokenizer.json': backend.to_str().encode(),
        'tokenizer_config.json': (json.dumps(settings, indent=2, ensure_ascii=False) + '\n').encode(),
    }
