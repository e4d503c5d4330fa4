"""The files that make a tokenizer, by the names under which transformers and SentencePiece publish them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data.files import write_whole

SENTENCEPIECE = 'tokenizer.model'
T5 = 'spiece.model'
WORDS = 'words.json'
MODELS = (  # the first that is there wins
    ('tokenizer.json',),
    ('vocab.json', 'merges.txt'),
    ('vocab.txt',),
    (T5,),
    (SENTENCEPIECE,),
    (WORDS,),
)
SETTINGS = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'chat_template.jinja')
OF_THE_MODEL = ('config.json', 'generation_config.json')  # they may know ids that the others leave out
EXPECTED = (
    'tokenizer.json, vocab.json with merges.txt, vocab.txt, spiece.model, tokenizer.model or words.json'
)


def find(directory: Path) -> tuple[str, ...]:
    """Returns the names of the files that hold the vocabulary, () if `directory` has no whole tokenizer."""
    return next((names for names in MODELS if all((directory / name).is_file() for name in names)), ())


def read(directory: Path, model_files: tuple[str, ...]) -> dict[str, bytes]:
    """Returns {name: bytes} of the vocabulary's files and of the settings beside them."""
    try:
        return {
            name: (directory / name).read_bytes()
            for name in (*model_files, *SETTINGS, *OF_THE_MODEL)
            if (directory / name).is_file()
        }
    except OSError as error:
        raise UserError(f'the tokenizer in {directory} cannot be read: {error}. Copy it anew.') from error


def write(directory: str | os.PathLike, files: Mapping[str, bytes]) -> None:
    """Writes a tokenizer's files into `directory`, and removes those of another tokenizer there.

    The vocabulary comes last, so that `find` sees no tokenizer that is only half written.
    """
    directory = Path(directory)
    vocabularies = [name for names in MODELS for name in names]
    for name in (*vocabularies, *SETTINGS):
        if name not in files:
            (directory / name).unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name in vocabularies):
        write_whole(directory / name, files[name])


def parse(files: Mapping[str, bytes], name: str, origin: str) -> dict[str, Any]:
    """Returns the JSON object in files[name], {} if there is no such file; UserError if it is none."""
    try:
        content = json.loads(files.get(name, b'{}'))
    except ValueError as error:
        raise UserError(f'{origin}/{name} is no JSON: {error}. Copy the file anew.') from error
    if not isinstance(content, dict):
        raise UserError(
            f'{origin}/{name} holds a JSON {type(content).__name__}, expected an object {{…}}. '
            'Copy the file anew.'
        )
    return content


def text(files: Mapping[str, bytes], name: str, origin: str) -> str:
    """Returns files[name] as text; UserError if it is not UTF-8."""
    try:
        return files[name].decode('utf-8')
    except UnicodeDecodeError as error:
        raise UserError(f'{origin}/{name} is not UTF-8: {error}. Copy the file anew.') from error
