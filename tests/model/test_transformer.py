"""The model against formulas written out in NumPy, float64, one head and one position at a time."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer import Transformer

VARIANTS = {
    'gpt2': {'family': 'gpt2'},
    'llama': {'family': 'llama'},
    'llama with grouped heads': {'family': 'llama', 'num_kv_heads': 2, 'head_dim': 6},
    'gpt2 with normalised queries': {
        'family': 'gpt2',
        'qk_norm': True,
        'num_kv_heads': 1,
        'activation': 'gelu',
    },
    'llama tied, relu, learned positions': {
        'family': 'llama',
        'tie_embeddings': True,
        'activation': 'relu',
        'position': 'learned',
        'use_bias': True,
    },
    'qwen2: biases of queries, keys and values alone': {'family': 'llama', 'qkv_bias': True},
    'mistral: a window': {'family': 'llama', 'sliding_window': 4},
}


def normalise(x, p, config):
    if config.norm == 'layernorm':
        x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon) * p['scale'] + p.get('bias', 0)


def activate(x, name):
    return {
        'gelu': lambda: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
        'gelu_tanh': lambda: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        'silu': lambda: x / (1 + np.exp(-x)),
        'relu': lambda: np.maximum(x, 0),
    }[name]()


def turn(x_LH, theta):
    """Rotary positions as multiplication of complex numbers."""
    half = x_LH.shape[1] // 2
    frequencies = theta ** (-np.arange(half) * 2 / x_LH.shape[1])
    z = (x_LH[:, :half] + 1j * x_LH[:, half:]) * np.exp(1j * np.arange(len(x_LH))[:, None] * frequencies)
    return np.concatenate([z.real, z.imag], axis=1)


def attention(x_LD, p, config):
    def head(name, n):
        y = x_LD @ p[name]['kernel'][:, n] + (p[name]['bias'][n] if config.qkv_bias else 0)
        if config.qk_norm and name != 'value':
            y = normalise(y, p[f'{name}_norm'], config)
        return turn(y, config.rope_theta) if config.position == 'rotary' and name != 'value' else y

    y = np.zeros_like(x_LD) + (p['out']['bias'] if config.use_bias else 0)
    for n in range(config.num_heads):
        m = n // (config.num_heads // config.num_kv_heads)
        q, k, v = head('query', n), head('key', m), head('value', m)
        for i in range(len(x_LD)):
            seen = slice(max(0, i + 1 - config.sliding_window) if config.sliding_window else 0, i + 1)
            weights = np.exp(q[i] @ k[seen].T / math.sqrt(config.head_dim))
            y[i] += weights / weights.sum() @ v[seen] @ p['out']['kernel'][n]
    return y


def mlp(x, p, config):
    def linear(x, p):
        return x @ p['kernel'] + p.get('bias', 0)

    hidden = activate(linear(x, p['gate' if config.gated_mlp else 'up']), config.activation)
    return linear(hidden * linear(x, p['up']) if config.gated_mlp else hidden, p['down'])


def forward(params, tokens, config):
    """Returns logits [L, V] of one row."""
    x = params['token_embedding']['embedding'][tokens]
    if config.position == 'learned':
        x = x + params['position_embedding']['embedding'][: len(tokens)]
    for layer in range(config.num_layers):
        p = jax.tree.map(lambda a, layer=layer: a[layer], params['blocks'])
        x = x + attention(normalise(x, p['attention_norm'], config), p['attention'], config)
        x = x + mlp(normalise(x, p['mlp_norm'], config), p['mlp'], config)
    x = normalise(x, params['final_norm'], config)
    return x @ (
        params['token_embedding']['embedding'].T if config.tie_embeddings else params['unembed']['kernel']
    )


def to_numpy(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def random_tokens(length, batch=1, seed=0):
    return np.random.default_rng(seed).integers(0, 40, (batch, length)).astype(np.int32)


@pytest.mark.parametrize('keys', VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_equal_the_formulas(make_model, keys):
    model, params = make_model(**keys)
    tokens = random_tokens(11, batch=2)
    logits = jax.jit(model.apply)({'params': params}, tokens)
    expected = np.stack([forward(to_numpy(params), row, model.config) for row in tokens])
    np.testing.assert_allclose(logits, expected, atol=2e-5)  # logits are of order 1; float32 against float64


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_gradients_equal_finite_differences_of_the_formulas(make_model, family):
    model, params = make_model(family, num_kv_heads=2)
    tokens = random_tokens(8)

    def loss(logits, exp, log, total):
        nll = log(exp(logits[:-1]).sum(-1)) - logits[np.arange(7), tokens[0, 1:]]
        return total(nll)

    gradient = jax.jit(
        jax.grad(lambda p: loss(model.apply({'params': p}, tokens)[0], jnp.exp, jnp.log, jnp.sum))
    )(params)

    exact = to_numpy(params)
    rng = np.random.default_rng(0)
    step = 1e-5
    leaves = zip(jax.tree.leaves(exact), jax.tree.leaves(to_numpy(gradient)), strict=True)
    for leaf, leaf_gradient in leaves:
        # The entry with the largest gradient, so that a wrong zero cannot pass, and one by chance.
        for index in (np.abs(leaf_gradient).argmax(), rng.integers(leaf.size)):
            index = np.unravel_index(index, leaf.shape)
            value, ends = leaf[index], []
            for sign in (1, -1):
                leaf[index] = value + sign * step
                ends.append(loss(forward(exact, tokens[0], model.config), np.exp, np.log, np.sum))
            leaf[index] = value
            difference = (ends[0] - ends[1]) / (2 * step)
            assert difference == pytest.approx(leaf_gradient[index], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_a_packed_row_equals_its_documents_alone(make_model, family):
    model, params = make_model(family, num_kv_heads=2)
    lengths, length = (5, 9, 6), 24  # and 4 of padding
    tokens = random_tokens(length)
    segments = np.repeat([1, 2, 3, 0], [*lengths, 4]).astype(np.int32)[None]
    positions = np.concatenate([np.arange(n) for n in (*lengths, 4)]).astype(np.int32)[None]
    apply = jax.jit(model.apply)
    packed = apply({'params': params}, tokens, segments, positions)
    begin = 0
    for n in lengths:
        alone = apply({'params': params}, tokens[:, begin : begin + n])
        np.testing.assert_allclose(packed[:, begin : begin + n], alone, atol=1e-5)
        begin += n
    assert np.isfinite(packed).all()


def test_nothing_leaks_from_the_future_or_from_other_segments(make_model):
    model, params = make_model('llama')
    tokens = random_tokens(12)
    segments = np.repeat([1, 2], 6).astype(np.int32)[None]
    positions = np.tile(np.arange(6), 2).astype(np.int32)[None]
    apply = jax.jit(lambda tokens: model.apply({'params': params}, tokens, segments, positions)[0])
    before = apply(tokens)
    for changed, affected in ((2, range(2, 6)), (6, range(6, 12)), (11, [11])):
        other = tokens.copy()
        other[0, changed] = (other[0, changed] + 1) % 40
        moved = np.flatnonzero((apply(other) != before).any(axis=-1))
        np.testing.assert_array_equal(moved, affected)


def test_rematerialisation_leaves_losses_and_gradients_alone(make_model):
    tokens = random_tokens(16, batch=2)
    results = {}
    for policy in ('none', 'dots', 'full'):
        model, params = make_model('llama', remat=policy)

        def loss(params, model=model):
            return jnp.mean(jax.nn.logsumexp(model.apply({'params': params}, tokens), axis=-1))

        results[policy] = jax.jit(jax.value_and_grad(loss))(params)
    for policy in ('dots', 'full'):
        for a, b in zip(*map(jax.tree.leaves, (results[policy], results['none'])), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_dropout_follows_its_key(make_model):
    model, params = make_model('gpt2', dropout_rate=0.5)
    tokens = random_tokens(8)

    @jax.jit
    def dropped(seed):
        rngs = {'dropout': jax.random.key(seed)}
        return model.apply({'params': params}, tokens, deterministic=False, rngs=rngs)

    whole = jax.jit(model.apply)({'params': params}, tokens)
    np.testing.assert_array_equal(dropped(0), dropped(0))
    assert np.abs(dropped(0) - dropped(1)).max() > 0.1
    assert np.abs(dropped(0) - whole).max() > 0.1


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_bfloat16_computes_what_float32_does(make_model, family):
    tokens = random_tokens(16)
    model, params = make_model(family)
    exact = jax.jit(model.apply)({'params': params}, tokens)
    half, _ = make_model(family, compute_dtype='bfloat16')
    rounded = jax.jit(half.apply)({'params': params}, tokens)
    assert rounded.dtype == jnp.bfloat16
    error = np.abs(rounded.astype(np.float32) - exact).max() / np.abs(exact).max()
    assert error < 0.03  # bfloat16 keeps 8 bits, and errors add up over the layers


def test_parameters_are_float32_and_named_for_weight_decay(make_config):
    model = Transformer(make_config('gpt2', compute_dtype='bfloat16'))
    boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))['params']
    leaves = jax.tree_util.tree_leaves_with_path(
        boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )
    axes = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf.names for path, leaf in leaves}
    assert all(leaf.value.dtype == jnp.float32 for _, leaf in leaves)
    assert axes['token_embedding/embedding'] == ('vocab', 'embed')
    assert axes['blocks/attention/query/kernel'] == ('layers', 'embed', 'heads', 'head_dim')
    assert axes['blocks/attention/out/kernel'] == ('layers', 'heads', 'head_dim', 'embed')
    assert axes['blocks/mlp/down/kernel'] == ('layers', 'mlp', 'embed')
    assert {name.split('/')[-1] for name in axes} == {'kernel', 'bias', 'scale', 'embedding'}


def test_initial_predictions_are_nearly_uniform_and_residual_branches_small(make_config):
    model = Transformer(make_config('gpt2', num_layers=8, embed_dim=64))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))['params']
    attention = params['blocks']['attention']
    assert np.std(attention['query']['kernel']) == pytest.approx(0.02, rel=0.05)
    assert np.std(attention['out']['kernel']) == pytest.approx(0.02 / 4, rel=0.05)
    assert not np.allclose(attention['query']['kernel'][0], attention['query']['kernel'][1])
    log_p = jax.nn.log_softmax(jax.jit(model.apply)({'params': params}, random_tokens(24)))
    assert -np.mean(log_p) == pytest.approx(math.log(40), rel=0.01)
