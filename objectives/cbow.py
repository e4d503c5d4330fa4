"""CBOW with negative sampling: the mean of a word's neighbours predicts it (Mikolov et al. 2013a, 2013b).

B rows · M places · N blocks · S places in a block · T places that a block sees · D width
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from objectives import word_windows
from objectives.word_windows import lengths, make_batch

__all__ = ['check', 'lengths', 'loss', 'make_batch', 'train_flops_per_row']


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model, tokenizer or text cannot do it."""
    word_windows.check('cbow', config, model_config, tokenizer)


def train_flops_per_row(config: Any, model_config: Any, tokenizer: Any) -> int:
    """Returns the floating-point operations of a row's forward and backward passes."""
    return word_windows.score_flops(config, tokenizer, model_config, products=1)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns the loss, summed over words that have neighbours, their number, and no metrics.

    −log σ(u_i · h) of each word i and the mean h of its neighbours' vectors, and negatives · −log σ(−u_k · h)
    of noise words k. Gradients are those of word_windows.at_word_rates.

    Args:
      model: WordEmbeddings.
      params: its parameters.
      batch: from `make_batch`.
      config: `words` is read.
      dropout_key: nothing is dropped.
    """
    window = config.words.window
    mask_BNST = word_windows.pair_mask(batch, window)
    number_BNS = jnp.sum(mask_BNST, axis=-1)
    has_BNS = (number_BNS > 0).astype(jnp.float32)
    params = word_windows.at_word_rates(params, batch, has_BNS, config)
    neighbours_BMD = model.apply({'params': params}, batch['words_BM'])
    words_BMD = model.apply({'params': params}, batch['words_BM'], method='contexts')
    means_BNSD = word_windows.product(
        'bnst,bntd->bnsd',
        mask_BNST / jnp.maximum(number_BNS, 1.0)[..., None],
        word_windows.with_neighbours(neighbours_BMD, window),
        model,
    )
    scores_BNS = jnp.sum(means_BNSD * word_windows.in_blocks(words_BMD, window), axis=-1)
    noise_BNKD = word_windows.noise_vectors(model, params, batch)
    noise_BNSK = word_windows.product('bnsd,bnkd->bnsk', means_BNSD, noise_BNKD, model)
    total = jnp.sum(jax.nn.softplus(-scores_BNS) * has_BNS)
    total += config.words.negatives * word_windows.noise_loss(noise_BNSK, has_BNS)
    return total, jnp.sum(has_BNS), {}
