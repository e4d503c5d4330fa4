"""Cross-entropy against NumPy, float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives.cross_entropy import cross_entropy

rng = np.random.default_rng(0)
logits = rng.normal(0, 3, (2, 5, 11)).astype(np.float32)
targets = rng.integers(0, 11, (2, 5)).astype(np.int32)

SETTINGS = [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.3, 1e-3)]


def formula(logits, label_smoothing, z_loss):
    """Returns −Σ q log p + z_loss · log²Z and −log p(target), with the whole of q written out."""
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    log_p = logits - log_z
    one_hot = np.eye(logits.shape[-1])[targets]
    q = (1 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    return -(q * log_p).sum(-1) + z_loss * log_z[..., 0] ** 2, -(one_hot * log_p).sum(-1)


@pytest.mark.parametrize(('label_smoothing', 'z_loss'), SETTINGS)
def test_losses_equal_the_formula(label_smoothing, z_loss):
    out = cross_entropy(logits, targets, label_smoothing=label_smoothing, z_loss=z_loss)
    loss, nll = formula(logits, label_smoothing, z_loss)
    np.testing.assert_allclose(out.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(out.nll, nll, rtol=1e-5)
    assert out.loss.dtype == jnp.float32


@pytest.mark.parametrize(('label_smoothing', 'z_loss'), SETTINGS)
def test_gradients_equal_finite_differences_of_the_formula(label_smoothing, z_loss):
    weights = rng.normal(size=targets.shape)

    @jax.jit
    @jax.grad
    def gradient(logits):
        out = cross_entropy(logits, targets, label_smoothing=label_smoothing, z_loss=z_loss)
        return jnp.sum(out.loss * weights)

    expected = np.zeros(logits.shape)
    for index in np.ndindex(logits.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = logits.astype(np.float64)
            moved[index] += step
            ends.append((formula(moved, label_smoothing, z_loss)[0] * weights).sum())
        expected[index] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(gradient(logits), expected, atol=1e-5)


def test_the_nll_has_a_gradient_of_its_own():
    # softmax − one-hot, whatever the loss adds to it
    gradient = jax.grad(lambda x: jnp.sum(cross_entropy(x, targets, label_smoothing=0.1, z_loss=0.1).nll))(
        logits
    )
    expected = np.asarray(jax.nn.softmax(logits)) - np.eye(11)[targets]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_large_logits_stay_finite():
    out = cross_entropy(jnp.array([[[1e4, -1e4, 0.0]]]), jnp.array([[1]]), z_loss=1e-4)
    np.testing.assert_allclose(out.nll, [[2e4]])
    assert np.isfinite(out.loss).all()


def test_bfloat16_logits_are_summed_in_float32():
    wide = jnp.asarray(rng.normal(size=(1, 1, 5000)), jnp.bfloat16)
    target = jnp.array([[17]])
    out = cross_entropy(wide, target)
    exact = np.log(np.exp(np.asarray(wide, np.float64)).sum()) - float(wide[0, 0, 17])
    assert float(out.nll[0, 0]) == pytest.approx(exact, rel=1e-5)
    gradient = jax.grad(lambda x: cross_entropy(x, target).loss.sum())(wide)
    assert gradient.dtype == jnp.bfloat16
