"""Prefix language modelling: the beginning of a document, seen whole, predicts the rest (Raffel et al. 2020).

R rows · T tokens in a row · B batch · L length
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from objectives import causal, cross_entropy


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if the model is no decoder that sees its prompt whole."""
    cross_entropy.require('prefix_lm', model_config, 'prefix_decoder')


lengths = causal.lengths


def make_batch(
    rows_RT: np.ndarray, *, tokenizer: Any, seeds_R: np.ndarray, **_: Any
) -> dict[str, np.ndarray]:
    """Cuts each document of packed rows in two, anywhere, and learns to predict the second part.

    Args:
      rows_RT: int32 ids [B, L + 1].
      tokenizer: its `bos_id`, `eos_id` and `pad_id` are read.
      seeds_R: uint64, which decides where.

    Returns:
      What causal.make_batch returns, and prefix_BL (bool).
    """
    batch = causal.make_batch(rows_RT, tokenizer=tokenizer)
    segments_BL, positions_BL = batch['segments_BL'], batch['positions_BL']
    prefix_BL = np.zeros(segments_BL.shape, bool)
    for row, seed in enumerate(seeds_R):
        count = segments_BL[row].max(initial=0)
        lengths = np.bincount(segments_BL[row], minlength=count + 1)
        cuts = np.random.default_rng(seed).uniform(size=count + 1) * (lengths - 1)
        prefix_BL[row] = (segments_BL[row] > 0) & (positions_BL[row] <= cuts[segments_BL[row]])
    hidden = np.pad(prefix_BL[:, 1:] & (positions_BL[:, 1:] > 0), ((0, 0), (0, 1)))
    return batch | {'prefix_BL': prefix_BL, 'weights_BL': batch['weights_BL'] * ~hidden}


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over the batch: of loss, weights and metrics, as causal.loss does."""
    names = ('tokens_BL', 'segments_BL', 'positions_BL', 'prefix_BL')
    unembedding = cross_entropy.apply(model, params, batch, names, dropout_key)
    return cross_entropy.sums(unembedding, batch['targets_BL'], batch['weights_BL'], config)
