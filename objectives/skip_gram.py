"""Skip-gram with negative sampling: a word predicts each of its neighbours (Mikolov et al. 2013a, 2013b).

B rows · M places · N blocks · S places in a block · T places that a block sees · D width
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from objectives import word_windows
from objectives.word_windows import lengths, make_batch

__all__ = ['LOOKUPS', 'check', 'lengths', 'loss', 'make_batch', 'row_factors', 'train_flops_per_row']

LOOKUPS = {  # training/table_rows.py
    'words_BM': ('center_embedding',),
    'words_BP': ('context_embedding',),
    'noise_BNK': ('context_embedding',),
}


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model, tokenizer or text cannot do it."""
    word_windows.check('skip_gram', config, model_config, tokenizer)


def train_flops_per_row(config: Any, model_config: Any, tokenizer: Any) -> int:
    """Returns the floating-point operations of a row's forward and backward passes."""
    around = word_windows.block(config.words.window) + 2 * config.words.window
    return word_windows.score_flops(config, tokenizer, model_config, columns=around)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns the loss, summed over pairs of a word and a neighbour, their number, and no metrics.

    −log σ(u_j · v_i) of each pair, and negatives · −log σ(−u_k · v_i) of noise words k (Mikolov et al. 2013b,
    eq. 4).

    Args:
      model: WordEmbeddings.
      params: its parameters.
      batch: from `make_batch`.
      config: `words` is read.
      dropout_key: nothing is dropped.
    """
    window = config.words.window
    mask_BNST = word_windows.pair_mask(batch, window)
    pairs_BNS = jnp.sum(mask_BNST, axis=-1)
    centers_BMD = word_windows.vectors(params, 'center_embedding', batch, 'words_BM')
    contexts_BPD = word_windows.vectors(params, 'context_embedding', batch, 'words_BP')
    around_BNTD = word_windows.with_neighbours(contexts_BPD, window)
    noise_BNKD = word_windows.vectors(params, 'context_embedding', batch, 'noise_BNK')
    scores = word_windows.scores(  # of neighbours and noise at once
        word_windows.in_blocks(centers_BMD, window),
        jnp.concatenate([around_BNTD, noise_BNKD], axis=2),
        model,
    )
    scores_BNST, noise_BNSK = jnp.split(scores, [around_BNTD.shape[2]], axis=-1)
    total = jnp.sum(jax.nn.softplus(-scores_BNST) * mask_BNST)
    total += config.words.negatives * word_windows.noise_loss(noise_BNSK, pairs_BNS)
    return total, jnp.sum(pairs_BNS), {}


def row_factors(batch: dict[str, jax.Array], *, config: Any, rows: int) -> dict[str, jax.Array]:
    """Returns the factors of words' gradients, {table: [rows]} (word_windows.word_factors)."""
    pairs_BNS = jnp.sum(word_windows.pair_mask(batch, config.words.window), axis=-1)
    return word_windows.word_factors(batch, pairs_BNS, LOOKUPS, config, rows)
