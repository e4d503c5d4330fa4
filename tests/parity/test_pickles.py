"""PyTorch's weight files: read on request, never trusted."""

from __future__ import annotations

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.errors import UserError
from model.pickled_tensors import INDEX, WEIGHTS, PickledTensors
from tests.data import tiny_tokenizers
from training import run

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')


@pytest.fixture
def directory(tmp_path) -> Path:
    """GPT-2 as in the hub's first years: one pickle, in half precision."""
    directory = tiny_tokenizers.gpt2(tmp_path / 'gpt2')
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = {'bos_token_id': tokenizer.bos_token_id, 'eos_token_id': tokenizer.eos_token_id}
    config = transformers.GPT2Config(
        n_layer=2, n_embd=12, n_head=3, n_positions=32, vocab_size=len(tokenizer), **ids
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).half()
    model.save_pretrained(directory)
    tensors = load_file(directory / 'model.safetensors')
    torch.save({name: torch.from_numpy(t) for name, t in tensors.items()}, directory / WEIGHTS)
    return directory


def test_a_pickle_gives_the_parameters_that_safetensors_give(directory):
    expected = run.open_run(str(directory)).params
    (directory / 'model.safetensors').unlink()
    with pytest.raises(UserError, match=r'convert.py --pickles reads them'):
        run.open_run(str(directory))
    found = run.open_run(str(directory), pickles=True).params
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_several_files_are_found_by_their_index(directory):
    tensors = torch.load(directory / WEIGHTS, weights_only=True)
    names = list(tensors)
    file_of = {name: f'pytorch_model-0000{1 + n % 2}-of-00002.bin' for n, name in enumerate(names)}
    for file in set(file_of.values()):
        torch.save({name: tensors[name] for name in names if file_of[name] == file}, directory / file)
    (directory / INDEX).write_text(str({'weight_map': file_of}).replace("'", '"'))
    (directory / WEIGHTS).unlink()
    found = PickledTensors(directory)
    assert found.names() == set(names)
    for name in names:
        assert found.shape(name) == tuple(tensors[name].shape)
        np.testing.assert_array_equal(found.read(name), tensors[name].float().numpy())
    (directory / file_of[names[0]]).unlink()
    with pytest.raises(UserError, match=r'pytorch_model-00001-of-00002.bin is missing'):
        PickledTensors(directory)


class Attack:
    """What a pickle may hold: a call of any function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(directory, tmp_path):
    marker = tmp_path / 'ran'
    torch.save({'weight': Attack(marker)}, directory / WEIGHTS)
    with pytest.raises(UserError, match='holds more than tensors, and was not read'):
        run.open_run(str(directory), pickles=True)
    (directory / WEIGHTS).write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(UserError, match='is damaged, or holds more than tensors'):
        run.open_run(str(directory), pickles=True)
    assert not marker.exists()


def test_a_truncated_pickle_is_refused(directory):
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='is damaged'):
        PickledTensors(directory)
