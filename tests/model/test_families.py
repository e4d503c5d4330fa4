"""How keys resolve, and which combinations are refused."""

from __future__ import annotations

import pytest

from configs import base, finetune
from configs.errors import UserError
from model import families


def resolve(platform='cpu', vocab_size=8192, sequence_length=256, compute_dtype='auto', **model_keys):
    config = base.get_config()
    config.update({'sequence_length': sequence_length, 'compute_dtype': compute_dtype})
    config.model.update(model_keys)
    return families.resolve(config, vocab_size=vocab_size, platform=platform)


def test_the_default_is_gpt2():
    config = resolve(vocab_size=8000)
    assert (config.norm, config.position, config.activation) == ('layernorm', 'learned', 'gelu_tanh')
    assert (config.use_bias, config.tie_embeddings, config.gated_mlp) == (True, True, False)
    assert (config.head_dim, config.num_kv_heads, config.mlp_dim) == (64, 6, 1536)
    assert (config.vocab_size, config.max_length) == (8064, 256)


def test_llama_7b_has_its_published_sizes():
    config = resolve(family='llama', num_layers=32, embed_dim=4096, num_heads=32, mlp_dim=11008)
    assert (config.norm, config.position, config.activation) == ('rmsnorm', 'rotary', 'silu')
    assert (config.use_bias, config.tie_embeddings, config.gated_mlp) == (False, False, True)
    assert (config.head_dim, config.num_kv_heads, config.max_length) == (128, 32, 256)


def test_a_gated_mlp_is_two_thirds_as_wide():
    assert resolve(family='llama', embed_dim=384).mlp_dim == 1024
    assert resolve(family='llama', embed_dim=768).mlp_dim == 2048
    assert (
        resolve(family='llama', embed_dim=512, num_heads=8).mlp_dim == 1408
    )  # 1365⅓, up to a multiple of 64


def test_a_key_overrides_its_family():
    config = resolve(family='llama', norm='layernorm', tie_embeddings=True, num_kv_heads=2, mlp_dim=100)
    assert (config.norm, config.tie_embeddings, config.num_kv_heads, config.mlp_dim) == (
        'layernorm',
        True,
        2,
        100,
    )


def test_auto_follows_the_platform():
    auto = {platform: resolve(platform) for platform in ('cpu', 'gpu', 'tpu')}
    assert {p: (c.compute_dtype, c.attention) for p, c in auto.items()} == {
        'cpu': ('float32', 'xla'),
        'gpu': ('bfloat16', 'cudnn'),
        'tpu': ('bfloat16', 'splash'),
    }
    assert resolve('gpu', compute_dtype='float32').attention == 'xla'
    assert resolve('tpu', sequence_length=200).attention == 'xla'
    assert resolve('tpu', sequence_length=600).attention == 'xla'
    assert resolve('tpu', sequence_length=10_000).attention == 'blockwise'
    assert resolve('tpu', sequence_length=1 << 20).attention == 'blockwise'
    assert resolve('cpu', sequence_length=512).attention == 'blockwise'


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'family': 'gpt3'}, r"model.family='gpt3' is not known. Did you mean 'gpt2'"),
        ({'norm': 'rms'}, r"model.norm='rms'"),
        ({'position': 'rope'}, r"model.position='rope'"),
        ({'activation': 'swish'}, r"model.activation='swish'"),
        ({'attention': 'flash'}, r"model.attention='flash'"),
        ({'remat': 'all'}, r"model.remat='all'"),
        ({'compute_dtype': 'float16'}, r"compute_dtype='float16'"),
        ({'num_heads': 0}, r'model.num_heads=0 must be at least 1'),
        ({'num_heads': 7}, r'model.embed_dim=384 does not divide over model.num_heads=7'),
        ({'num_kv_heads': 4}, r'model.num_heads=6 is not a multiple of model.num_kv_heads=4'),
        ({'family': 'llama', 'head_dim': 33}, r'model.head_dim=33 is odd'),
        ({'max_length': 128}, r'sequence_length=256 is longer than model.max_length=128'),
        ({'vocab_size': 100}, r'model.vocab_size=100 is too small for the 8192 ids'),
        ({'dropout_rate': 1.0}, r'model.dropout_rate=1.0'),
        ({'attention': 'cudnn'}, r"model.attention='cudnn' needs a GPU"),
        ({'attention': 'cudnn', 'platform': 'gpu', 'compute_dtype': 'float32'}, r'float32 and 64'),
        ({'attention': 'splash'}, r"model.attention='splash' needs a TPU"),
        ({'attention': 'splash', 'platform': 'tpu', 'sequence_length': 200}, r'here are tpu and 200'),
    ],
)
def test_impossible_keys_are_refused(keys, message):
    config = base.get_config()
    for key, value in keys.items():
        if key != 'platform':
            (config.model if key in config.model else config)[key] = value
    with pytest.raises(UserError, match=message):
        families.resolve(config, vocab_size=8192, platform=keys.get('platform', 'cpu'))


def test_sizes_that_do_not_divide_over_the_mesh_are_refused():
    config = resolve(family='llama', num_kv_heads=2, num_heads=8, vocab_size=8192)
    families.check_layout(config, {'data': 3, 'fsdp': 4, 'tensor': 2, 'context': 2})
    with pytest.raises(
        UserError, match=r'model.num_kv_heads=2 does not divide over 4 devices \(mesh tensor=4\)'
    ):
        families.check_layout(config, {'data': 1, 'fsdp': 1, 'tensor': 4, 'context': 1})
    odd = resolve(vocab_size=8192, mlp_dim=1535)
    with pytest.raises(UserError, match=r'model.mlp_dim=1535'):
        families.check_layout(odd, {'tensor': 2})


@pytest.mark.parametrize(('family', 'rate'), [('gpt2', 0.1), ('llama', 0.0), ('bert', 0.1), ('t5', 0.1)])
def test_fine_tuning_drops_out_as_the_family_was_trained(family, rate):
    config = finetune.get_config('writing')
    config.model.family = family
    assert families.resolve(config, vocab_size=300).dropout_rate == rate
    config.model.dropout_rate = 0.3
    assert families.resolve(config, vocab_size=300).dropout_rate == 0.3
