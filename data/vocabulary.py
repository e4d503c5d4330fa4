"""The vocabulary of a published tokenizer: a backend of the `tokenizers` library and its special tokens.

What the files leave out is filled in as transformers does, so that ids agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from configs.errors import UserError
from data import t5_tokenizer, tokenizer_files

ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')
# What special tokens are called where no file names them.
BERT_NAMES = {'cls': '[CLS]', 'sep': '[SEP]', 'pad': '[PAD]', 'mask': '[MASK]', 'unk': '[UNK]'}
GPT2_NAMES = {'bos': '<|endoftext|>', 'eos': '<|endoftext|>', 'unk': '<|endoftext|>'}
LLAMA_NAMES = {'bos': '<s>', 'eos': '</s>', 'pad': '<pad>', 'mask': '<mask>', 'unk': '<unk>'}
T5_NAMES = {'eos': '</s>', 'pad': '<pad>', 'unk': '<unk>'}
FLAGS = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')  # of AddedToken


@dataclass(frozen=True)
class Vocabulary:
    """backend: what encodes; size: the largest id + 1; names, ids: of the special tokens, by role ('eos')."""

    backend: Tokenizer
    size: int
    names: dict[str, str]
    ids: dict[str, int]


def read_vocabulary(files: Mapping[str, bytes], origin: str) -> Vocabulary:
    """Returns the vocabulary in `files` ({name: bytes}, from the directory `origin`).

    An id of a special token is, the first that is said: of the token that the tokenizer's files name; what
    the model's config.json or generation_config.json says; of the token that is usual. Raises UserError
    for broken files.
    """
    settings = _settings(files, origin)
    named = {role: _content(settings[f'{role}_token']) for role in ROLES if settings.get(f'{role}_token')}
    backend = _backend(files, settings, named, origin)
    usual = _usual_names(backend, files, settings)
    _add_tokens(backend, files, settings, {**usual, **named}, origin)
    _frame_prompts(backend, files, settings, {**usual, **named})
    backend.no_truncation()
    backend.no_padding()
    ids = backend.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    return Vocabulary(
        backend,
        size,
        {**usual, **named},
        {role: ids[name] for role, name in usual.items()}
        | _ids_of_the_model(files, size, origin)
        | {role: ids[name] for role, name in named.items()},
    )


def _settings(files: Mapping[str, bytes], origin: str) -> dict[str, Any]:
    """Returns tokenizer_config.json and special_tokens_map.json, the older place of the same, as one."""
    config = tokenizer_files.parse(files, 'tokenizer_config.json', origin)
    older = tokenizer_files.parse(files, 'special_tokens_map.json', origin)
    return config if 'added_tokens_decoder' in config else {**config, **older}


def _content(token: str | dict[str, Any]) -> str:
    return token['content'] if isinstance(token, dict) else token


def _backend(
    files: Mapping[str, bytes], settings: dict[str, Any], named: dict[str, str], origin: str
) -> Tokenizer:
    """Returns the backend of whichever vocabulary is there; UserError if it is broken."""
    known = ('tokenizer.json', 'merges.txt', 'vocab.txt', tokenizer_files.T5)
    name = next(name for name in known if name in files)
    try:
        if name == tokenizer_files.T5:
            model = tokenizer_files.parse(files, 'config.json', origin).get('model_type', '')
            return t5_tokenizer.backend(
                files[name], settings, settings.get('tokenizer_class') or model, origin
            )
        content = tokenizer_files.text(files, name, origin)
        if name == 'tokenizer.json':
            return Tokenizer.from_str(content)
        if name == 'merges.txt':
            return _byte_level_bpe(tokenizer_files.parse(files, 'vocab.json', origin), content, settings)
        return _word_piece(content, settings, named.get('unk', BERT_NAMES['unk']))
    except UserError:
        raise
    except Exception as error:  # the library raises nothing more precise
        raise UserError(
            f'{origin}/{name} is no file that the tokenizers library reads: {error}. Copy the tokenizer '
            'anew, or use newer tokenizers if the file is newer.'
        ) from error


def _byte_level_bpe(vocabulary: dict[str, int], merges: str, settings: dict[str, Any]) -> Tokenizer:
    """Radford et al. 2019: BPE over bytes, each byte spelt as a printable character."""
    lines = [line.rstrip('\r') for line in merges.split('\n') if not line.startswith('#version')]
    pairs = [(left, right) for left, right in (line.split(' ') for line in lines if line)]
    backend = Tokenizer(models.BPE(vocabulary, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get('add_prefix_space', False))
    backend.decoder = decoders.ByteLevel()
    return backend


def _word_piece(lines: str, settings: dict[str, Any], unknown: str) -> Tokenizer:
    """Devlin et al. 2019: words, lower-cased or not, spelt by the longest pieces of the vocabulary."""
    pieces = lines.removesuffix('\n').split('\n')
    vocabulary = {piece.rstrip('\r'): token for token, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get('do_lower_case', True),
        handle_chinese_chars=settings.get('tokenize_chinese_chars', True),
        strip_accents=settings.get('strip_accents'),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _usual_names(backend: Tokenizer, files: Mapping[str, bytes], settings: dict[str, Any]) -> dict[str, str]:
    """Returns {role: token} where the files are silent and the vocabulary has a token of a usual name."""
    if 'tokenizer.json' in files:
        known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        candidates = [BERT_NAMES, GPT2_NAMES, LLAMA_NAMES]
    else:
        known = backend.get_vocab().keys()
        names = {'merges.txt': GPT2_NAMES, tokenizer_files.T5: T5_NAMES}
        candidates = [next((names[name] for name in names if name in files), BERT_NAMES)]
    usual = next((names for names in candidates if names.get('eos', names.get('sep')) in known), {})
    return {role: name for role, name in usual.items() if name in known and f'{role}_token' not in settings}


def _add_tokens(
    backend: Tokenizer,
    files: Mapping[str, bytes],
    settings: dict[str, Any],
    names: dict[str, str],
    origin: str,
) -> None:
    """Adds, in the order of their ids, what the settings name and the vocabulary's own file does not."""
    listed = settings.get('added_tokens_decoder', {})
    wanted = [listed[number] for number in sorted(listed, key=int)]
    if 'tokenizer.json' not in files:
        older = tokenizer_files.parse(files, 'added_tokens.json', origin)
        special = set(names.values())
        wanted += [
            {'content': token, 'special': token in special, 'normalized': token not in special}
            for token in sorted(older, key=lambda token: older[token])
        ]
    wanted += [settings.get(f'{role}_token') or name for role, name in names.items()]
    for key in ('additional_special_tokens', 'extra_special_tokens'):
        more = settings.get(key) or []
        wanted += more.values() if isinstance(more, dict) else more
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing = {}
    for token in wanted:
        if _content(token) not in known and _content(token) not in missing:
            flags = {'normalized': False, 'special': True}
            if isinstance(token, dict):
                flags |= {flag: token[flag] for flag in FLAGS if flag in token}
            missing[_content(token)] = AddedToken(_content(token), **flags)
    backend.add_tokens(list(missing.values()))  # at once: each call indexes them all anew


def _frame_prompts(
    backend: Tokenizer, files: Mapping[str, bytes], settings: dict[str, Any], names: dict[str, str]
) -> None:
    """Sets the special tokens around a prompt; a tokenizer.json says so itself, and T5 has only one way."""
    if 'tokenizer.json' in files or tokenizer_files.T5 in files:
        return
    if 'merges.txt' in files:
        begin, end = (
            names.get(role) if settings.get(f'add_{role}_token') else None for role in ('bos', 'eos')
        )
    else:
        begin, end = names.get('cls'), names.get('sep')
    tokens = [token for token in (begin, end) if token]
    if tokens:
        backend.post_processor = processors.TemplateProcessing(
            single=[*([begin] if begin else []), '$A', *([end] if end else [])],
            special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(tokens)],
        )


def _ids_of_the_model(files: Mapping[str, bytes], size: int, origin: str) -> dict[str, int]:
    """Returns {role: id} of bos, eos and pad in the model's own files; UserError for ids beyond `size`."""
    found = {}
    for name in reversed(tokenizer_files.OF_THE_MODEL):
        content = tokenizer_files.parse(files, name, origin)
        for role in ('bos', 'eos', 'pad'):
            value = content.get(f'{role}_token_id')
            token = value[0] if isinstance(value, list) and value else value
            if not isinstance(token, int):
                continue
            if not 0 <= token < size:
                raise UserError(
                    f'{origin}/{name} says {role}_token_id={token}, but the tokenizer there has ids below '
                    f'{size}. Put the tokenizer of this very model beside it, or correct the id.'
                )
            found[role] = token
    return found
