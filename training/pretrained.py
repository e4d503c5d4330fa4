"""Published models: a directory in Hugging Face's format, its name on the hub, or a GGUF file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base
from configs.errors import UserError
from data.checkpoint_tokenizer import GGUF
from data.fast_tokenizer import FastTokenizer
from data.hub import HUB, fetch_model
from data.tokenizer import Tokenizer
from data.tokenizer import export as export_tokenizer
from data.tokenizer import load as load_tokenizer
from model import huggingface, huggingface_export, pickled_tensors, tensor_files
from model.decoding import Decoding
from model.families import ModelConfig
from model.tensor_files import TensorFiles, Tensors

CONFIG, GENERATION = 'config.json', 'generation_config.json'
NEEDED = ('*.json', '*.safetensors', '*.model', '*.txt', '*.jinja')  # of a repository
PICKLES = 'pytorch_model*.bin'  # besides, if asked for
OBJECTIVES = {
    'bert': 'masked',
    't5': 'span_corruption',
    'transformer': 'seq2seq',
}  # of families; else 'causal'
LONGEST_SEQUENCE = 1024  # of evaluation and fine-tuning, unless the experiment says otherwise


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model that has been opened, but not read."""

    path: Path
    values: dict[str, Any]  # what config.json says
    files: Tensors
    tokenizer: Tokenizer
    decoding: Decoding  # where the user says nothing else


def find(checkpoint: str, *, pickles: bool = False) -> Published | None:
    """Opens a directory in Hugging Face's format, `hf:NAME` or `hf:NAME@REVISION` from the hub, or FILE.gguf.

    Returns None when `checkpoint` is something else, such as a run. Raises UserError when it is not there,
    broken, or of a kind that is not known. With `pickles`, weights are read from PyTorch's files.
    """
    path = Path(checkpoint)
    if checkpoint.startswith(HUB):
        path = fetch_model(checkpoint, (*NEEDED, PICKLES) if pickles else NEEDED)
    if path.suffix == GGUF and path.is_file():
        return _open_gguf(path)
    if not (path / CONFIG).is_file() or 'model_type' not in (values := read_json(path / CONFIG)):
        return None
    huggingface.model_keys(values, str(path / CONFIG))  # an architecture that is not known goes first
    files = pickled_tensors.PickledTensors(path) if pickles else TensorFiles(path)
    return Published(path, values, files, load_tokenizer(path), _read_decoding(path))


def _open_gguf(path: Path) -> Published:
    # Imported here: nothing else needs the library.
    from data import gguf_tokenizer
    from model import gguf_files

    reader = gguf_tokenizer.open_reader(path)
    files = gguf_files.GGUFFiles(reader, path)
    tokenizer = FastTokenizer(gguf_tokenizer.files(reader, str(path)), str(path))
    return Published(path, files.config_json(), files, tokenizer, Decoding(temperature=0.0))


def read_json(path: Path) -> dict[str, Any]:
    """Returns a JSON object; UserError if the file holds none."""
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f'{path} cannot be read ({error}); download it again.') from error
    if not isinstance(values, dict):
        raise UserError(f'{path} holds no JSON object; download it again.')
    return values


def experiment(published: Published) -> ConfigDict:
    """Returns the default experiment with a published model, and what its family was pre-trained for."""
    keys = huggingface.model_keys(published.values, str(published.path), published.files.names())
    config = base.get_config()
    config.model.update(keys)
    config.objective = OBJECTIVES.get(keys['family'], 'causal')
    config.sequence_length = min(keys['max_length'], LONGEST_SEQUENCE)
    return config


def _read_decoding(directory: Path) -> Decoding:
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


def load_params(published: Published, abstract: Any) -> Any:
    """Returns the parameters, float32, in the shardings of `abstract`."""
    weight_map = huggingface.weight_map(published.values, published.files.names())
    return tensor_files.load(published.files, abstract, weight_map)


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
    values = huggingface_export.config_json(config)
    special = {
        'bos_token_id': tokenizer.bos_id,
        'eos_token_id': tokenizer.eos_id,
        'pad_token_id': tokenizer.pad_id,
    }
    if config.encoder_layers:
        special['decoder_start_token_id'] = tokenizer.pad_id
    written = beside(directory)
    tensor_files.save(params, written, huggingface.weight_map(values))
    export_tokenizer(tokenizer, written)
    for name, content in ((CONFIG, values | special), (GENERATION, special)):
        (written / name).write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
    move_into_place(written, directory)
