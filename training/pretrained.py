"""Published models: a directory in Hugging Face's format, its name on the hub, or a GGUF file."""

from __future__ import annotations

import dataclasses
import json
import sys
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
# fmt: off
# Of generation_config.json: what is done as it says, and with what values the rest does nothing.
FOLLOWED = (
    'temperature', 'top_k', 'top_p', 'repetition_penalty', 'no_repeat_ngram_size', 'min_new_tokens',
    'num_beams', 'length_penalty', 'early_stopping',
)
HARMLESS = {
    'bad_words_ids': [], 'begin_suppress_tokens': [], 'constraints': [], 'diversity_penalty': 0.0,
    'encoder_no_repeat_ngram_size': 0, 'encoder_repetition_penalty': 1.0, 'epsilon_cutoff': 0.0,
    'eta_cutoff': 0.0, 'exponential_decay_length_penalty': [], 'force_words_ids': [],
    'forced_bos_token_id': [], 'forced_eos_token_id': [], 'guidance_scale': 1.0, 'min_length': 0,
    'min_p': 0.0, 'num_beam_groups': 1, 'num_return_sequences': 1, 'penalty_alpha': 0.0, 'sequence_bias': [],
    'stop_strings': [], 'suppress_tokens': [], 'top_h': [], 'typical_p': 1.0,
}
# fmt: on
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
    keys = huggingface.model_keys(values, str(path / CONFIG))  # an architecture that is not known goes first
    files = pickled_tensors.PickledTensors(path) if pickles else TensorFiles(path)
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > keys['vocab_size']:
        raise UserError(
            f'{path}: the tokenizer has {tokenizer.vocab_size} ids, but {CONFIG} says vocab_size='
            f'{keys["vocab_size"]}; put the tokenizer of this very model there.'
        )
    return Published(path, values, files, tokenizer, _read_decoding(path))


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
    values = {key: value for key, value in values.items() if value is not None}
    for key, harmless in HARMLESS.items():
        if values.get(key, harmless) != harmless:
            print(f'{path}: {key}={values[key]!r} is not known to Lathe; it has no effect.', file=sys.stderr)
    settings: dict[str, Any] = {key: values[key] for key in FOLLOWED if key in values}
    draws = values.get('do_sample', False)
    if draws:
        settings = {'top_k': 50} | settings
    else:
        settings |= {'temperature': 0.0, 'top_k': 0, 'top_p': 1.0}
    eos = values.get('eos_token_id', [])
    settings['eos_ids'] = tuple(eos if isinstance(eos, list) else [eos]) or None
    try:
        if not isinstance(draws, bool):
            raise UserError(f'do_sample={draws!r} must be true or false.')
        if not all(isinstance(each, int) for each in settings['eos_ids'] or ()):
            raise UserError(f'eos_token_id={eos!r} must be one id or several.')
        return Decoding(**settings)
    except (TypeError, UserError) as error:
        raise UserError(f'{path} asks for what cannot be done: {error}') from error


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
    """Makes and returns an empty directory in which to write what `move_into_place` moves.

    Raises UserError if one of its name is there: a conversion was cut short, or it is the user's.
    """
    path = directory.with_name(directory.name + '.tmp')
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(
            f'{path} is there, where {directory.name} is written first; remove it if it is left from a '
            'conversion that was cut short, or name another directory.'
        ) from error
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
