"""Low-rank adapters against the formula of Hu et al. 2021, and merged into their kernels."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from model import families, lora
from model.layers import Linear
from model.lora import LoRA
from model.transformer import Transformer
from training import freezing


@pytest.mark.parametrize(
    ('x_shape', 'features', 'axes'),
    [
        ((2, 5, 6), (4, 3), ('embed', 'heads', 'head_dim')),
        ((2, 5, 4, 3), (6,), ('heads', 'head_dim', 'embed')),
    ],
)
def test_adapters_add_their_product_to_the_kernels(x_shape, features, axes):
    adapted = Linear(features, axes, use_bias=True, lora=LoRA(rank=2, alpha=5.0, targets=('kernel',)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape)
    shapes = nn.unbox(jax.eval_shape(adapted.init, jax.random.key(0), jnp.asarray(x, 'float32')))['params']
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)
    assert params['lora_a'].shape[-1] == params['lora_b'].shape[0] == 2
    inputs = len(axes) - len(features)
    product = np.tensordot(np.tensordot(x, params['lora_a'], inputs), params['lora_b'], 1)
    expected = np.tensordot(x, params['kernel'], inputs) + 5.0 / 2 * product + params['bias']
    found = adapted.apply({'params': jax.tree.map(jnp.float32, params)}, jnp.asarray(x, 'float32'))
    # float32 against float64, over sums of 12 products of numbers around 1, times 2.5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def adapted_model(family: str, targets: tuple[str, ...], **model_keys):
    config = base.get_config()
    base.shrink(config)
    config.sequence_length = 16
    config.model.update(family=family, embed_dim=32, num_heads=4, **model_keys)
    config.lora.update(rank=3, alpha=6.0, targets=targets)
    model = Transformer(families.resolve(config, vocab_size=100))
    config.lora.rank = 0
    plain = Transformer(families.resolve(config, vocab_size=100))
    tokens = jax.random.randint(jax.random.key(1), (2, 16), 0, 100)
    params = jax.jit(lambda: nn.unbox(model.init(jax.random.key(0), tokens))['params'])()
    return model, plain, params, tokens


def test_a_model_begins_as_it_was_and_only_targets_have_adapters():
    model, plain, params, tokens = adapted_model('llama', (r'attention/(query|value)/kernel$',))
    names = {name for name in freezing.named(params) if name.endswith(('lora_a', 'lora_b'))}
    assert names == {f'blocks/attention/{part}/lora_{side}' for part in ('query', 'value') for side in 'ab'}
    without = freezing.split(params, freezing.Learnt(only=lora.ADAPTERS))[1]
    np.testing.assert_array_equal(
        jax.jit(model.apply)({'params': params}, tokens), jax.jit(plain.apply)({'params': without}, tokens)
    )
    # x A is as large as x: the variance of A is one over what is summed.
    assert np.std(params['blocks']['attention']['query']['lora_a']) == pytest.approx(32**-0.5, rel=0.2)


@pytest.mark.parametrize('family', ['llama', 't5'])
def test_merged_and_unmerged_models_compute_the_same(family):
    model, plain, params, tokens = adapted_model(family, ('kernel$',), num_kv_heads=4)
    noise = lambda leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)  # noqa: E731
    adapters, kernels = freezing.split(params, freezing.Learnt(only=lora.ADAPTERS))
    params = freezing.join(jax.tree.map(noise, adapters), kernels)
    merged = jax.jit(lora.merge, static_argnums=1)(params, model.config.lora)
    assert jax.tree.structure(merged) == jax.tree.structure(kernels)
    inputs = {'encoder_tokens_BS': tokens} if family == 't5' else {}
    apart = jax.jit(model.apply)({'params': params}, tokens, **inputs)
    joined = jax.jit(plain.apply)({'params': merged}, tokens, **inputs)
    before = jax.jit(plain.apply)({'params': kernels}, tokens, **inputs)
    assert np.abs(apart - before).max() > 0.1, 'the adapters change something'
    # float32 rounding (6e-8) of sums that are made in another order, through two blocks
    np.testing.assert_allclose(joined, apart, rtol=1e-4, atol=1e-5)
