"""Attention and its back ends against softmax(q kᵀ / √H) v."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from model import families, kernels, ring_attention
from model.attention import attend
from model.transformer import Transformer


def inputs(batch, length, num_heads, num_kv_heads, head_dim):
    rng = np.random.default_rng(0)
    heads = (num_heads, num_kv_heads, num_kv_heads)
    q, k, v = (rng.normal(size=(batch, length, n, head_dim)).astype(np.float32) for n in heads)
    segments = np.sort(rng.integers(0, 3, (batch, length)), axis=1).astype(np.int32)
    return q, k, v, segments


def formula(q_BLNH, k_BSKH, v_BSKH, segments_BL, window=1000):
    """One query at a time, float64."""
    out = np.zeros(q_BLNH.shape)
    group = q_BLNH.shape[2] // k_BSKH.shape[2]
    for b, i, n in np.ndindex(q_BLNH.shape[:3]):
        first = max(0, i + 1 - window)
        seen = first + np.flatnonzero(segments_BL[b, first : i + 1] == segments_BL[b, i])
        keys, values = (x[b, seen, n // group].astype(np.float64) for x in (k_BSKH, v_BSKH))
        weights = np.exp(keys @ q_BLNH[b, i, n] / np.sqrt(q_BLNH.shape[-1]))
        out[b, i, n] = weights @ values / weights.sum()
    return out


@pytest.mark.parametrize('num_kv_heads', [4, 2, 1])
def test_attention_equals_the_formula(num_kv_heads):
    q, k, v, segments = inputs(2, 13, 4, num_kv_heads, 6)
    out = attend(q, k, v, segments, implementation='xla')
    np.testing.assert_allclose(out, formula(q, k, v, segments), atol=1e-5)
    whole = attend(q, k, v, None, implementation='xla')
    np.testing.assert_allclose(whole, formula(q, k, v, np.zeros_like(segments)), atol=1e-5)


def test_a_window_hides_what_is_farther_back():
    q, k, v, segments = inputs(2, 13, 4, 2, 6)
    for window in (1, 4, 13):
        out = attend(q, k, v, segments, implementation='xla', window=window)
        np.testing.assert_allclose(out, formula(q, k, v, segments, window), atol=1e-5)


def test_large_scores_do_not_overflow():
    q, k, v, segments = inputs(1, 8, 2, 2, 4)
    out = attend(1e3 * q, 1e3 * k, v, segments, implementation='xla')
    assert np.isfinite(out).all()


def values_and_gradients(function, q, k, v):
    cotangent = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    @jax.jit
    def both(*args):
        out, pull = jax.vjp(function, *args)
        return out, *pull(cotangent)

    return both(q, k, v)


@pytest.mark.parametrize('window', [0, 40])
def test_splash_equals_xla_forwards_and_backwards(window):
    q, k, v, segments = inputs(2, 256, 4, 2, 16)

    def xla(*qkv):
        return attend(*qkv, segments, implementation='xla', window=window)

    def splash(*qkv):
        return kernels.splash(*qkv, segments, window=window, interpret=True)

    expected, out = values_and_gradients(xla, q, k, v), values_and_gradients(splash, q, k, v)
    for a, b in zip(out, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # values of order 1 to 10, sums of 256


@pytest.mark.parametrize('options', [{}, {'window': 40}, {'causal': False}])
def test_blockwise_equals_xla_forwards_and_backwards(monkeypatch, options):
    monkeypatch.setattr(ring_attention, 'BLOCK', 32)
    *qkv, segments = inputs(2, 256, 4, 2, 16)

    def results(implementation):
        return values_and_gradients(
            lambda *qkv: attend(*qkv, segments, implementation=implementation, **options), *qkv
        )

    for a, b in zip(results('blockwise'), results('xla'), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # values of order 1 to 10, sums of 256


@pytest.mark.parametrize('rematerialise', [False, True])
def test_blockwise_needs_memory_in_proportion_to_length(rematerialise):
    """In a scan over layers too, before which JAX moves what they have alike, such as masks."""
    config = base.get_config()
    config.sequence_length = 16 * ring_attention.BLOCK
    config.model.update(family='llama', num_layers=2, embed_dim=8, num_heads=2, attention='blockwise')
    config.model.remat = 'full' if rematerialise else 'none'
    model = Transformer(dataclasses.replace(families.resolve(config, vocab_size=16), unroll=1))

    def loss(params, tokens):
        return jnp.sum(model.apply({'params': params}, tokens, tokens))

    tokens = jax.ShapeDtypeStruct((1, config.sequence_length), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)['params']
    memory = jax.jit(jax.grad(loss)).lower(nn.unbox(params), tokens).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < config.sequence_length**2


def test_cudnn_is_given_the_causal_mask_within_segments(monkeypatch):
    # cuDNN itself needs a GPU: here XLA computes what it is asked for.
    original = jax.nn.dot_product_attention

    def asked(*args, implementation, **kwargs):
        assert implementation == 'cudnn'
        return original(*args, implementation='xla', **kwargs)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', asked)
    q, k, v, segments = inputs(2, 14, 4, 2, 8)
    for window in (0, 4):
        out = attend(q, k, v, segments, implementation='cudnn', window=window)
        np.testing.assert_allclose(out, formula(q, k, v, segments, window or 14), atol=1e-5)


def test_shapes_that_a_kernel_cannot_take_go_to_xla():
    q, k, v, segments = inputs(1, 5, 2, 2, 8)
    out = attend(q, k, v, segments, implementation='splash')
    np.testing.assert_allclose(out, formula(q, k, v, segments), atol=1e-5)


def test_bfloat16_attention_keeps_its_softmax_in_float32():
    q, k, v, segments = inputs(1, 64, 2, 2, 8)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    out = attend(*half, segments, implementation='xla')
    assert out.dtype == jnp.bfloat16
    exact = formula(*(np.asarray(x, np.float32) for x in half), segments)
    np.testing.assert_allclose(np.asarray(out, np.float32), exact, atol=0.03)  # 8 bits of values up to 3
