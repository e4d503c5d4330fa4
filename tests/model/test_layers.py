from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from model import layers
from model.positions import frequencies, rotate, rotation

x = np.random.default_rng(0).normal(2, 3, (4, 5, 16)).astype(np.float32)
scale, bias = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)


def test_layer_norm_is_its_formula():
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + 1e-5) * scale + bias
    np.testing.assert_allclose(layers.layer_norm(x, scale, bias, epsilon=1e-5), expected, atol=1e-5)


def test_rms_norm_is_its_formula():
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(layers.rms_norm(x, scale, epsilon=1e-6), expected, atol=1e-5)


def test_norms_compute_in_float32():
    # In bfloat16 the variance of values near 1000 would be lost.
    shifted = jnp.asarray(x * 4 + 1000, jnp.bfloat16)
    out = layers.layer_norm(shifted, scale, bias, epsilon=1e-5)
    expected = layers.layer_norm(shifted.astype(jnp.float32), scale, bias, epsilon=1e-5)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ('name', 'formula'),
    [
        ('gelu', lambda z: z * (1 + erf(z / np.sqrt(2))) / 2),
        ('gelu_tanh', lambda z: z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2),
        ('silu', lambda z: z / (1 + np.exp(-z))),
        ('relu', lambda z: np.maximum(z, 0)),
    ],
)
def test_activations_are_their_formulas(name, formula):
    np.testing.assert_allclose(layers.ACTIVATIONS[name](x), formula(x.astype(np.float64)), atol=1e-5)


def rotary(**keys):
    return SimpleNamespace(**{'rope_scaling': 'none', 'rope_factor': 1.0, **keys})


def test_long_wavelengths_are_stretched_and_short_ones_kept():
    plain = frequencies(rotary(head_dim=64, rope_theta=500000.0))
    linear = frequencies(rotary(head_dim=64, rope_theta=500000.0, rope_scaling='linear', rope_factor=4.0))
    np.testing.assert_allclose(linear, plain / 4, rtol=1e-6)
    llama3 = frequencies(
        rotary(
            head_dim=64,
            rope_theta=500000.0,
            rope_scaling='llama3',
            rope_factor=8.0,
            rope_low_factor=1.0,
            rope_high_factor=4.0,
            rope_original_length=8192,
        )
    )
    wavelengths = 2 * np.pi / plain
    short, long = wavelengths < 8192 / 4, wavelengths > 8192
    np.testing.assert_array_equal(llama3[short], plain[short])
    np.testing.assert_allclose(llama3[long], plain[long] / 8, rtol=1e-6)
    between = ~short & ~long
    assert 0 < between.sum() < 32
    assert (np.diff(llama3) < 0).all()
    assert ((plain / 8 < llama3) & (llama3 < plain))[between].all()


def test_rotary_scores_depend_on_distance_alone():
    q, k = np.random.default_rng(2).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def score(i, j):
        turned = [
            rotate(jnp.asarray(y), rotation(jnp.array([[p]]), rotary(head_dim=8, rope_theta=100.0)))
            for y, p in ((q, i), (k, j))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(3, 1) == pytest.approx(score(12, 10), abs=1e-5)
    assert score(0, 0) == pytest.approx(float(np.sum(q * k)), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)
