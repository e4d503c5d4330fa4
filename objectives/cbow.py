"""CBOW with negative sampling: the mean of a word's neighbours predicts it (Mikolov et al. 2013a, 2013b).

B rows · M places · P with a margin of W on either side, Q with two · N blocks · S places in a block ·
K noise words · O offsets of neighbours · D width
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from objectives import word_windows
from objectives.word_windows import lengths, make_batch

__all__ = ['LOOKUPS', 'check', 'lengths', 'loss', 'make_batch', 'row_factors', 'train_flops_per_row']

LOOKUPS = {  # training/table_rows.py
    'words_BP': ('center_embedding',),
    'words_BM': ('context_embedding',),
    'noise_BNK': ('context_embedding',),
}


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
        near_OBM / jnp.maximum(number_BM, 1.0), vectors('center_embedding', 'words_BP')
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


def row_factors(batch: dict[str, jax.Array], *, config: Any, rows: int) -> dict[str, jax.Array]:
    """Returns the factors of words' gradients, {table: [rows]} (word_windows.word_factors)."""
    window = config.words.window
    has_BNS = word_windows.in_blocks(jnp.max(neighbour_mask(batch, window), axis=0), window)
    return word_windows.word_factors(batch, has_BNS, LOOKUPS, config, rows)


def neighbour_mask(batch: dict[str, jax.Array], window: int) -> jax.Array:
    """Returns float32 [O, B, M]: 1 where a place has the one at an offset within its window and document."""
    documents_BP, windows_BM = batch['documents_BP'], batch['windows_BM']
    documents_BM = word_windows.inner(documents_BP, window)
    near = [
        (abs(offset) <= windows_BM) & (documents_BM == _at(documents_BP, offset, window))
        for offset in _offsets(window)
    ]
    return (jnp.stack(near) & (documents_BM > 0)).astype(jnp.float32)


@jax.custom_vjp
def weighted_neighbours(weights_OBM: jax.Array, x_BPD: jax.Array) -> jax.Array:
    """Returns [B, M, D]: Σ over offsets o of weights [o, b, m] · x [b, W + m + o], without weights' gradient.

    Some ten sums, which on CPUs take a third of the time of a product with a band matrix (docs/log.md).
    """
    window = len(weights_OBM) // 2
    terms = (
        weights_BM[..., None] * _at(x_BPD, offset, window)
        for offset, weights_BM in zip(_offsets(window), weights_OBM, strict=True)
    )
    return functools.reduce(jnp.add, terms)


def _by_neighbours(weights_OBM: jax.Array, by_sums_BMD: jax.Array) -> tuple[None, jax.Array]:
    """A place is at offset −o from the one that is at offset o from it."""
    window = len(weights_OBM) // 2
    ends = [(0, 0), (2 * window, 2 * window)]
    weights_OBQ = jnp.pad(weights_OBM, [(0, 0), *ends])
    transposed = [
        _at(weights_BQ, offset, window)
        for offset, weights_BQ in zip(_offsets(window), weights_OBQ[::-1], strict=True)
    ]
    return None, weighted_neighbours(jnp.stack(transposed), jnp.pad(by_sums_BMD, [*ends, (0, 0)]))


weighted_neighbours.defvjp(lambda weights, x: (weighted_neighbours(weights, x), weights), _by_neighbours)


def _offsets(window: int) -> list[int]:
    return [*range(-window, 0), *range(1, window + 1)]


def _at(x_BP: jax.Array, offset: int, window: int) -> jax.Array:
    """Returns [B, M, …]: for each place within the margin, what [B, P, …] has at an offset from it."""
    return jax.lax.slice_in_dim(x_BP, window + offset, x_BP.shape[1] - window + offset, axis=1)
