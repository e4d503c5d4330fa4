"""CBOW with negative sampling: the mean of a word's neighbours predicts it (Mikolov et al. 2013a, 2013b).

B rows · M places · N blocks · S places in a block · K noise words · O offsets of neighbours · D width
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from objectives import word_windows
from objectives.word_windows import LOOKUPS, lengths, make_batch

__all__ = ['LOOKUPS', 'check', 'lengths', 'loss', 'make_batch', 'rescale', 'train_flops_per_row']


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model, tokenizer or text cannot do it."""
    word_windows.check('cbow', config, model_config, tokenizer)


def train_flops_per_row(config: Any, model_config: Any, tokenizer: Any) -> int:
    """Returns the floating-point operations of a row's forward and backward passes."""
    return word_windows.score_flops(config, tokenizer, model_config, columns=2 * config.words.window + 1)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns the loss, summed over words that have neighbours, their number, and no metrics.

    −log σ(u_i · h) of each word i and the mean h of its neighbours' vectors, and negatives · −log σ(−u_k · h)
    of noise words k.

    Args:
      model: WordEmbeddings.
      params: its parameters.
      batch: from `make_batch`.
      config: `words` is read.
      dropout_key: nothing is dropped.
    """
    window = config.words.window
    near_OBM = neighbour_mask(batch, window)
    number_BM = jnp.sum(near_OBM, axis=0)
    has_BM = (number_BM > 0).astype(jnp.float32)
    vectors = lambda table, entry: word_windows.vectors(params, table, batch, entry)  # noqa: E731
    means_BMD = weighted_neighbours(
        near_OBM / jnp.maximum(number_BM, 1.0), vectors('center_embedding', 'words_BM')
    )
    scores_BM = jnp.sum(means_BMD * vectors('context_embedding', 'words_BM'), axis=-1)
    noise_BNSK = word_windows.scores(
        word_windows.in_blocks(means_BMD, window),
        vectors('context_embedding', 'noise_BNK'),
        model,
    )
    total = jnp.sum(jax.nn.softplus(-scores_BM) * has_BM)
    total += config.words.negatives * word_windows.noise_loss(
        noise_BNSK, word_windows.in_blocks(has_BM, window)
    )
    return total, jnp.sum(has_BM), {}


def rescale(gradients: Any, batch: dict[str, jax.Array], *, config: Any) -> Any:
    """Returns the gradients of a whole batch at the rates of words (word_windows.at_word_rates)."""
    window = config.words.window
    has_BM = jnp.max(neighbour_mask(batch, window), axis=0)
    return word_windows.at_word_rates(gradients, batch, word_windows.in_blocks(has_BM, window), config)


def neighbour_mask(batch: dict[str, jax.Array], window: int) -> jax.Array:
    """Returns float32 [O, B, M]: 1 where a place has the one at an offset within its window and document."""
    documents_BM, windows_BM = batch['documents_BM'], batch['windows_BM']
    near = [
        (abs(offset) <= windows_BM) & (documents_BM == _shifted(documents_BM, offset, window))
        for offset in _offsets(window)
    ]
    return (jnp.stack(near) & (documents_BM > 0)).astype(jnp.float32)


@jax.custom_vjp
def weighted_neighbours(weights_OBM: jax.Array, x_BMD: jax.Array) -> jax.Array:
    """Returns [B, M, D]: Σ over offsets o of weights [o, b, m] · x [b, m + o], without weights' gradient.

    Some ten sums, which on CPUs take a third of the time of a product with a band matrix (docs/log.md).
    """
    window = len(weights_OBM) // 2
    terms = (
        weights_BM[..., None] * _shifted(x_BMD, offset, window)
        for offset, weights_BM in zip(_offsets(window), weights_OBM, strict=True)
    )
    return functools.reduce(jnp.add, terms)


def _by_neighbours(weights_OBM: jax.Array, by_sums_BMD: jax.Array) -> tuple[None, jax.Array]:
    """A place is at offset −o from the one that is at offset o from it."""
    window = len(weights_OBM) // 2
    transposed = [
        _shifted(weights_BM, offset, window)
        for offset, weights_BM in zip(_offsets(window), weights_OBM[::-1], strict=True)
    ]
    return None, weighted_neighbours(jnp.stack(transposed), by_sums_BMD)


weighted_neighbours.defvjp(lambda weights, x: (weighted_neighbours(weights, x), weights), _by_neighbours)


def _offsets(window: int) -> list[int]:
    return [*range(-window, 0), *range(1, window + 1)]


def _shifted(x_BM: jax.Array, offset: int, window: int) -> jax.Array:
    """Returns [B, M, …] with what [B, M, …] has at m + offset; 0 past the ends."""
    padded = jnp.pad(x_BM, [(0, 0), (window, window), *[(0, 0)] * (x_BM.ndim - 2)])
    return jax.lax.slice_in_dim(padded, window + offset, window + offset + x_BM.shape[1], axis=1)
