"""Softmax cross-entropy over a vocabulary, in float32, and what all objectives do to come to it.

B batch · L length · V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from configs.errors import UserError
from model.unembedding import Unembedding


class CrossEntropy(NamedTuple):
    """Per token, float32 [B, L], in nats."""

    loss: jax.Array  # what is minimised: smoothed, with the z-loss
    nll: jax.Array  # −log p(target), what perplexity and bits per byte are made of
    z_loss: jax.Array  # the z-loss's part of `loss`


def cross_entropy(
    logits_BLV: jax.Array, targets_BL: jax.Array, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> CrossEntropy:
    """Computes −Σᵥ qᵥ log pᵥ + z_loss · log²Z, where q is (1 − ε) at the target plus ε/V everywhere.

    Args:
      logits_BLV: any float dtype.
      targets_BL: int32 ids.
      label_smoothing: ε (Szegedy et al. 2016).
      z_loss: weight of log²Z, which keeps logits from drifting (Chowdhery et al. 2022, section 5).
    """
    return _of_statistics(_statistics(logits_BLV, targets_BL), label_smoothing, z_loss)


def _of_statistics(
    statistics: tuple[jax.Array, jax.Array, jax.Array], label_smoothing: float, z_loss: float
) -> CrossEntropy:
    """Returns the cross-entropy from log Σ exp(logits), the target's logit and the mean logit."""
    log_z_BL, target_BL, mean_BL = statistics
    nll = log_z_BL - target_BL
    z = z_loss * jnp.square(log_z_BL)
    loss = nll + z
    if label_smoothing:
        loss += label_smoothing * (target_BL - mean_BL)
    return CrossEntropy(loss, nll, z)


@jax.custom_vjp
def _statistics(logits_BLV: jax.Array, targets_BL: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns log Σ exp(logits), the target's logit and the mean logit, each float32 [B, L].

    The gradient is written out so that the backward pass is one sweep over the logits, in their
    dtype: derived automatically, it scatters into a float32 array of the logits' size.
    """
    logits = logits_BLV.astype(jnp.float32)
    target = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0].astype(jnp.float32)
    return jax.nn.logsumexp(logits, axis=-1), target, jnp.mean(logits, axis=-1)


def _statistics_forward(logits_BLV, targets_BL):
    statistics = _statistics(logits_BLV, targets_BL)
    return statistics, (logits_BLV, targets_BL, statistics[0])


def _statistics_backward(residuals, gradients):
    logits_BLV, targets_BL, log_z_BL = residuals
    by_log_z, by_target, by_mean = (g[..., None] for g in gradients)
    vocab_size = logits_BLV.shape[-1]
    p_BLV = jnp.exp(logits_BLV.astype(jnp.float32) - log_z_BL[..., None])
    is_target = jax.lax.broadcasted_iota(targets_BL.dtype, logits_BLV.shape, 2) == targets_BL[..., None]
    gradient = by_log_z * p_BLV + jnp.where(is_target, by_target, 0) + by_mean / vocab_size
    return gradient.astype(logits_BLV.dtype), None


_statistics.defvjp(_statistics_forward, _statistics_backward)


class Lengths(NamedTuple):
    """Tokens of a row: what the decoder, or the only stack, reads; what a separate encoder reads; logits."""

    tokens: int
    encoder_tokens: int = 0
    predicted: int | None = None  # None: all of `tokens`


def require(objective: str, model_config: Any, structure: str) -> None:
    """Raises UserError if a model is of another structure than an objective needs."""
    if model_config.structure != structure:
        raise UserError(
            f'objective={objective!r} trains a model of structure {structure!r}, and model.family='
            f'{model_config.family!r} with model.structure={model_config.structure!r} is none; change '
            'either of them.'
        )


def apply(
    model: Any,
    params: Any,
    batch: dict[str, jax.Array],
    names: Iterable[str],
    dropout_key: jax.Array | None,
    output: str | tuple[str, ...] = 'unembedding',
    **options: Any,
) -> Any:
    """Returns the model's output for the arrays of a batch that have these names, where it has them."""
    return model.apply(
        {'params': params},
        **{name: batch[name] for name in names if name in batch},
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {'dropout': dropout_key},
        output=output,
        **options,
    )


def sums(
    unembedding: Unembedding, targets_BL: jax.Array, weights_BL: jax.Array, config: Any
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums of the loss, of the weights, and of metrics: `nll`, and `z_loss` if there is any.

    `label_smoothing`, `z_loss` and `model.vocab_blocks` of the experiment are read.
    """
    if config.model.vocab_blocks == 1:
        statistics = _statistics(unembedding.logits(), targets_BL)
    else:
        statistics = unembedding.statistics(targets_BL, config.model.vocab_blocks)
    losses = _of_statistics(statistics, config.label_smoothing, config.z_loss)
    totals = {name: jnp.sum(value_BL * weights_BL) for name, value_BL in losses._asdict().items()}
    if not config.z_loss:
        del totals['z_loss']
    return totals.pop('loss'), jnp.sum(weights_BL), totals
