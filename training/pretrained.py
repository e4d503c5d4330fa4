"""Published models: a directory in Hugging Face's format, or its name on the hub, opened and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base
from configs.errors import UserError
from data.tokenizer import Tokenizer
from data.tokenizer import export as export_tokenizer
from model import huggingface, tensor_files
from model.decoding import Decoding
from model.families import ModelConfig

HUB = 'hf:'
CONFIG, GENERATION = 'config.json', 'generation_config.json'
NEEDED = ['*.json', '*.safetensors', '*.model', '*.txt', '*.jinja']  # of a repository; never pickles
LONGEST_SEQUENCE = 1024  # of evaluation and fine-tuning, unless the experiment says otherwise


def find(checkpoint: str) -> Path | None:
    """Returns the directory of a published model, downloaded if it is `hf:NAME` or `hf:NAME@REVISION`.

    None when `checkpoint` is something else, such as a run. UserError when the hub does not have it.
    """
    if checkpoint.startswith(HUB):
        return _download(checkpoint.removeprefix(HUB))
    directory = Path(checkpoint)
    return (
        directory
        if (directory / CONFIG).is_file() and 'model_type' in read_json(directory / CONFIG)
        else None
    )


def _download(name: str) -> Path:
    # Imported here: it takes a second, and only names on the hub need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition('@')
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=NEEDED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise UserError(
            f'--checkpoint={HUB}{name} could not be fetched from the hub ({type(error).__name__}: {reason}). '
            'Check name, revision and connection, or give a local directory.'
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object; UserError if the file holds none."""
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f'{path} cannot be read ({error}); download it again.') from error
    if not isinstance(values, dict):
        raise UserError(f'{path} holds no JSON object; download it again.')
    return values


def experiment(directory: Path) -> ConfigDict:
    """Returns the default experiment with the model of a published directory."""
    keys = huggingface.model_keys(read_json(directory / CONFIG), str(directory / CONFIG))
    config = base.get_config()
    config.model.update(keys)
    config.sequence_length = min(keys['max_length'], LONGEST_SEQUENCE)
    return config


def read_decoding(directory: Path) -> Decoding:
    """Returns what generation_config.json asks for: greedy unless it says `do_sample`, as in transformers."""
    path = directory / GENERATION
    values = read_json(path) if path.is_file() else {}
    if not values.get('do_sample'):
        return Decoding(temperature=0.0, repetition_penalty=values.get('repetition_penalty') or 1.0)
    return Decoding(
        temperature=values.get('temperature') or 1.0,
        top_k=50 if values.get('top_k') is None else values['top_k'],
        top_p=values.get('top_p') or 1.0,
        repetition_penalty=values.get('repetition_penalty') or 1.0,
    )


def load_params(directory: Path, config: ModelConfig, abstract: Any) -> Any:
    """Returns the parameters, float32, in the shardings of `abstract`."""
    files = tensor_files.TensorFiles(directory)
    return tensor_files.load(files, abstract, family=config.family, tied=config.tie_embeddings)


def new_directory(directory: Path) -> Path:
    """Returns the directory; UserError if something is there already."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise UserError(f'{directory} is there and not empty; name a new directory, or empty it.')
    return directory


def beside(directory: Path) -> Path:
    """Makes and returns an empty directory in which to write what `move_into_place` moves."""
    path = directory.with_name(directory.name + '.tmp')
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def move_into_place(path: Path, directory: Path) -> None:
    """Gives what was written beside its name."""
    if directory.exists():
        directory.rmdir()
    path.rename(directory)


def save(directory: Path, config: ModelConfig, params: Any, tokenizer: Tokenizer) -> None:
    """Writes a directory that transformers loads, whole or not at all; `directory` must be new or empty."""
    values = huggingface.config_json(config)
    special = {
        'bos_token_id': tokenizer.bos_id,
        'eos_token_id': tokenizer.eos_id,
        'pad_token_id': tokenizer.pad_id,
    }
    written = beside(directory)
    tensor_files.save(params, written, table=huggingface.table_of(values))
    export_tokenizer(tokenizer, written)
    for name, content in ((CONFIG, values | special), (GENERATION, special)):
        (written / name).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    move_into_place(written, directory)
