"""Causal language modelling: every token predicts the next.

R rows · T tokens in a row · B batch · L length
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from objectives.cross_entropy import cross_entropy


def make_batch(rows_RT: np.ndarray, *, tokenizer: Any) -> dict[str, np.ndarray]:
    """Splits packed rows into inputs, targets, weights, segments and positions.

    A segment begins at each bos and at the first column; padding is segment 0. The weight is 0
    where there is nothing to predict: at padding, and where the next token begins another document.

    Args:
      rows_RT: int32 ids [B, L + 1].
      tokenizer: its `bos_id`, `eos_id` and `pad_id` are read; they may be one and the same.

    Returns:
      tokens_BL, targets_BL, segments_BL, positions_BL (int32) and weights_BL (float32).
    """
    tokens = rows_RT[:, :-1]
    real, begins = ~_is_padding(rows_RT, tokenizer), _begins_document(rows_RT, tokenizer)
    learnt = real[:, :-1] & real[:, 1:] & ~begins[:, 1:]
    starts = begins[:, :-1]
    starts[:, 0] = True
    index = np.arange(tokens.shape[1], dtype=np.int32)
    return {
        'tokens_BL': tokens,
        'targets_BL': rows_RT[:, 1:],
        'weights_BL': learnt.astype(np.float32),
        'segments_BL': np.cumsum(starts, axis=1, dtype=np.int32) * real[:, :-1],
        'positions_BL': index - np.maximum.accumulate(np.where(starts, index, 0), axis=1),
    }


def _is_padding(rows_RT: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Returns booleans [R, T]: pad, or what follows the first of a row's last pads where pad is eos too."""
    pad = rows_RT == tokenizer.pad_id
    if tokenizer.pad_id not in (tokenizer.bos_id, tokenizer.eos_id):
        return pad
    last = np.logical_and.accumulate(pad[:, ::-1], axis=1)[:, ::-1]
    last[:, 1:] &= last[:, :-1]
    last[:, 0] = False
    return last


def _begins_document(rows_RT: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Returns booleans [R, T]: bos, or the second of two where eos is the same token, as in GPT-2."""
    bos = rows_RT == tokenizer.bos_id
    if tokenizer.bos_id == tokenizer.eos_id:
        bos[:, 1:] &= bos[:, :-1]
    return bos


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over the batch: of the loss, of the weights, and of metrics.

    Args:
      model: a Transformer.
      params: its parameters.
      batch: from `make_batch`.
      config: the experiment; `label_smoothing` and `z_loss` are read.
      dropout_key: None computes without dropout.
    """
    logits_BLV = model.apply(
        {'params': params},
        batch['tokens_BL'],
        batch['segments_BL'],
        batch['positions_BL'],
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {'dropout': dropout_key},
    )
    losses = cross_entropy(
        logits_BLV, batch['targets_BL'], label_smoothing=config.label_smoothing, z_loss=config.z_loss
    )
    weights_BL = batch['weights_BL']
    sums = {name: jnp.sum(value_BL * weights_BL) for name, value_BL in losses._asdict().items()}
    if not config.z_loss:
        del sums['z_loss']
    return sums.pop('loss'), jnp.sum(weights_BL), sums
