"""Causal language modelling: every token predicts the next.

R rows · T tokens in a row · B batch · L length
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from objectives import cross_entropy
from objectives.segments import begins_document, find_segments, is_padding


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if the model is no causal decoder."""
    cross_entropy.require('causal', model_config, 'decoder')


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the model reads."""
    return cross_entropy.Lengths(config.sequence_length)


def make_batch(rows_RT: np.ndarray, *, tokenizer: Any, **_: Any) -> dict[str, np.ndarray]:
    """Splits packed rows into inputs, targets, weights, segments and positions.

    The weight is 0 where there is nothing to predict: at padding, and where the next token begins
    another document.

    Args:
      rows_RT: int32 ids [B, L + 1].
      tokenizer: its `bos_id`, `eos_id` and `pad_id` are read; they may be one and the same.

    Returns:
      tokens_BL, targets_BL, segments_BL, positions_BL (int32) and weights_BL (float32).
    """
    real, begins = ~is_padding(rows_RT, tokenizer), begins_document(rows_RT, tokenizer)
    segments, positions = find_segments(rows_RT, tokenizer)
    return {
        'tokens_BL': rows_RT[:, :-1],
        'targets_BL': rows_RT[:, 1:],
        'weights_BL': (real[:, :-1] & real[:, 1:] & ~begins[:, 1:]).astype(np.float32),
        'segments_BL': segments[:, :-1],
        'positions_BL': positions[:, :-1],
    }


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
    unembedding = cross_entropy.apply(
        model, params, batch, ('tokens_BL', 'segments_BL', 'positions_BL'), dropout_key
    )
    return cross_entropy.sums(unembedding, batch['targets_BL'], batch['weights_BL'], config)
