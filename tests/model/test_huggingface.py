"""Published formats against what transformers computed (tests/parity/record.py), without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from configs import base
from configs.errors import UserError
from model import families, huggingface, huggingface_export, tensor_files
from model.decoding import Decoding
from model.generation import generate
from model.transformer import Transformer
from parallel import rules
from parallel.mesh import make_mesh

REFERENCES = Path(__file__).parents[1] / 'references'
NAMES = sorted(path.name for path in REFERENCES.iterdir())


def read_config(directory):
    return json.loads((directory / 'config.json').read_text())


def open_model(directory):
    values, files = read_config(directory), tensor_files.TensorFiles(directory)
    keys = huggingface.model_keys(values, 'config.json', files.names())
    config = base.get_config()
    config.model.update(keys)
    config.sequence_length = keys['max_length']
    config.compute_dtype = 'float32'
    model = Transformer(families.resolve(config, vocab_size=keys['vocab_size']))
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 8), np.int32)))['params']
    mesh = make_mesh({'data': 1, 'fsdp': 1, 'tensor': 1, 'context': 1})
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        rules.shardings(boxed, mesh),
    )
    weight_map = huggingface.weight_map(values, files.names())
    return model, tensor_files.load(files, abstract, weight_map)


def forward(model, params, tokens, attention_mask):
    """The logits; an encoder-decoder reads the tokens and is to repeat them."""
    inputs = {'tokens_BL': tokens, 'segments_BL': attention_mask}
    if model.config.structure == 'encoder_decoder':
        shifted = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
        inputs = {
            'tokens_BL': shifted,
            'encoder_tokens_BS': tokens,
            'encoder_segments_BS': attention_mask,
        }
    return jax.jit(model.apply)({'params': params}, **inputs)


@pytest.fixture
def copy(tmp_path):
    return lambda name: Path(shutil.copytree(REFERENCES / name, tmp_path / name))


@pytest.mark.parametrize('name', NAMES)
def test_logits_and_loss_are_those_of_transformers(name):
    expected = np.load(REFERENCES / name / 'expected.npz')
    model, params = open_model(REFERENCES / name)
    tokens = expected['tokens']
    logits = forward(model, params, tokens, expected['attention_mask'])
    real = expected['attention_mask'] > 0
    if model.config.structure == 'encoder_decoder':
        np.testing.assert_allclose(logits, expected['logits'], atol=1e-4)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    elif model.config.structure == 'encoder':
        np.testing.assert_allclose(logits[real], expected['logits'][real], atol=1e-4)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    else:
        np.testing.assert_allclose(logits[real], expected['logits'][real], atol=1e-4)
        logits, tokens, real = logits[:, :-1], tokens[:, 1:], real[:, 1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    if model.config.structure == 'encoder_decoder':
        real = np.ones_like(real)
    assert float(losses[real].mean()) == pytest.approx(float(expected['loss']), abs=1e-5)


@pytest.mark.parametrize('name', ['gpt2', 'mistral', 't5', 't5-gated', 'marian'])
def test_greedy_text_is_that_of_transformers(name):
    expected = np.load(REFERENCES / name / 'expected.npz')
    model, params = open_model(REFERENCES / name)
    greedy = generate(
        model,
        params,
        [expected['tokens'][0, :8].tolist()],
        Decoding(max_new_tokens=24, temperature=0),
        key=jax.random.key(0),
        eos_id=-1,
        pad_id=0,
    )
    np.testing.assert_array_equal(greedy[0], expected['greedy'])


@pytest.mark.parametrize('name', NAMES)
def test_what_is_written_is_what_was_read(tmp_path, name):
    model, params = open_model(REFERENCES / name)
    values = huggingface_export.config_json(model.config)
    (tmp_path / 'config.json').write_text(json.dumps(values))
    tensor_files.save(params, tmp_path, huggingface.weight_map(values), shard_bytes=8000)
    assert len(list(tmp_path.glob('*.safetensors'))) > 1
    written = {}
    for path in tmp_path.glob('*.safetensors'):
        written |= load_file(path)
    original = load_file(REFERENCES / name / 'model.safetensors')
    assert written.keys() == original.keys()
    for key, tensor in original.items():
        np.testing.assert_array_equal(written[key], tensor)
    again, params_again = open_model(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_the_base_model_alone_is_enough_where_the_output_table_is_tied(copy):
    directory = copy('gpt2')
    tensors = load_file(directory / 'model.safetensors')
    bare = {name.removeprefix('transformer.'): tensor for name, tensor in tensors.items()}
    bare['h.0.attn.bias'] = np.tril(np.ones((1, 1, 48, 48), np.float32))  # a constant that old files keep
    save_file(bare, directory / 'model.safetensors')
    _, params = open_model(directory)
    jax.tree.map(np.testing.assert_array_equal, params, open_model(REFERENCES / 'gpt2')[1])


def test_bfloat16_files_become_float32_parameters(copy):
    directory = copy('llama')
    tensors = load_file(directory / 'model.safetensors')
    rounded = {name: tensor.astype(jnp.bfloat16) for name, tensor in tensors.items()}
    save_file(rounded, directory / 'model.safetensors')
    _, params = open_model(directory)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('float32')}
    written = dict(tensor_files.tensors(params, huggingface.weight_map(read_config(directory))))
    for name, tensor in rounded.items():
        np.testing.assert_array_equal(written[name], tensor.astype(np.float32))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.pop('model.layers.1.mlp.up_proj.weight'), r'missing: model.layers.1.mlp.up_proj.weight'),
        (lambda t: t.update(extra=np.ones(3)), r'left over: extra'),
        (
            lambda t: t.update({'model.norm.weight': np.ones(17)}),
            r'misshapen: model.norm.weight is \[17\], not \[18\]',
        ),
        (
            lambda t: t.update({f'model.layers.{i}.self_attn.q_proj.bias': np.ones(18) for i in range(9)}),
            r'left over: .* and 4 more',
        ),
    ],
)
def test_every_tensor_is_accounted_for(copy, change, message):
    directory = copy('llama')
    tensors = load_file(directory / 'model.safetensors')
    change(tensors)
    save_file(tensors, directory / 'model.safetensors')
    with pytest.raises(UserError, match=message):
        open_model(directory)


def test_a_tied_model_with_another_output_table_is_refused(copy):
    directory = copy('llama3-tied')
    tensors = load_file(directory / 'model.safetensors')
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
    save_file(tensors, directory / 'model.safetensors')
    open_model(directory)
    tensors['lm_head.weight'][0, 0] += 1
    save_file(tensors, directory / 'model.safetensors')
    with pytest.raises(UserError, match='set tie_word_embeddings to false'):
        open_model(directory)


def test_damaged_and_missing_files_are_named(copy):
    directory = copy('llama')
    weights = directory / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r'model.safetensors is damaged'):
        open_model(directory)
    weights.rename(directory / 'pytorch_model.bin')
    with pytest.raises(
        UserError, match=r'there are pickles, pytorch_model.bin, .* convert.py --pickles reads them'
    ):
        open_model(directory)
    index = {'weight_map': {'model.norm.weight': 'model-00001-of-00002.safetensors'}}
    (directory / 'model.safetensors.index.json').write_text(json.dumps(index))
    with pytest.raises(UserError, match=r'model-00001-of-00002.safetensors is missing'):
        open_model(directory)


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        ('gpt2', {'model_type': 'gptj'}, "model_type='gptj' is not supported, only gpt2, llama"),
        ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx=True'),
        ('gpt2', {'activation_function': 'quick_gelu'}, "activation_function='quick_gelu' is not supported"),
        ('gpt2', {'n_layer': None}, 'n_layer'),
        ('llama', {'attention_bias': True}, 'attention_bias=True is not supported'),
        ('llama', {'attn_logit_softcapping': 50.0}, 'attn_logit_softcapping=50.0 is not known to Lathe'),
        ('llama', {'rope_parameters': {'rope_type': 'yarn', 'factor': 2.0}}, "rope_type='yarn'"),
        ('qwen2', {'use_sliding_window': True}, 'use_sliding_window=True is not supported'),
        ('llama', {'quantization_config': {'quant_method': 'bitsandbytes'}}, 'tensors are quantized'),
        ('llama', {'num_hidden_layers': 'two'}, "what gives model.num_layers is 'two', not int"),
        ('llama', {'rms_norm_eps': '1e-5'}, "what gives model.norm_epsilon is '1e-5', not float"),
        ('llama', {'tie_word_embeddings': 'yes'}, "model.tie_embeddings is 'yes', not bool"),
        ('llama', {'hidden_size': None}, 'hidden_size'),
        ('llama', {'rope_parameters': 5}, 'config.json has a value of a wrong type'),
        ('t5', {'feed_forward_proj': 3}, 'config.json has a value of a wrong type'),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name, change, message):
    values = read_config(REFERENCES / name) | change
    with pytest.raises(UserError, match=message):
        huggingface.model_keys({k: v for k, v in values.items() if v is not None}, 'config.json')


def test_what_google_wrote_of_its_poolers_has_no_effect():
    values = read_config(REFERENCES / 'bert')
    extra = {'directionality': 'bidi', 'pooler_fc_size': 768, 'pooler_type': 'first_token_transform'}
    assert huggingface.model_keys(values | extra, 'config.json') == huggingface.model_keys(
        values, 'config.json'
    )


def test_a_model_that_transformers_cannot_express_is_refused():
    model, _ = open_model(REFERENCES / 'gpt2')
    odd = families.dataclasses.replace(model.config, norm='rmsnorm')
    with pytest.raises(UserError, match=r'no architecture of transformers .* norm=rmsnorm'):
        huggingface_export.config_json(odd)
