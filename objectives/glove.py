"""GloVe: two words' vectors tell the logarithm of how often they stand together (Pennington et al. 2014).

R, B rows · T integers in a row · L records in a row · D width
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from objectives import word_windows
from objectives.word_windows import lengths

__all__ = ['check', 'lengths', 'loss', 'make_batch', 'train_flops_per_row']


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model, tokenizer or data cannot do it."""
    word_windows.require('glove', model_config, tokenizer)
    if not model_config.use_bias:
        raise UserError("objective='glove' has a bias for each word; use model.use_bias=True.")
    if not config.data.cooccurrence_window:
        raise UserError(
            "objective='glove' learns from co-occurrences; set data.cooccurrence_window and prepare the text."
        )
    if config.words.x_max <= 0:
        raise UserError(f'words.x_max={config.words.x_max} must be above 0; the paper has 100.')
    if config.words.alpha < 0:
        raise UserError(f'words.alpha={config.words.alpha} must not be negative; the paper has 0.75.')


def make_batch(rows_RT: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
    """Splits rows of data/cooccurrences.py [R, 3 L + 1] into int32 centers_BL and contexts_BL, and counts_BL.

    counts_BL is float32, 0 where a row holds no record.
    """
    length = rows_RT.shape[1] // 3
    centers, contexts, bits = (rows_RT[:, n * length : (n + 1) * length] for n in range(3))
    counts = np.ascontiguousarray(bits).view(np.float32)
    return {'centers_BL': centers, 'contexts_BL': contexts, 'counts_BL': counts}


def train_flops_per_row(config: Any, model_config: Any, tokenizer: Any) -> int:
    """Returns the floating-point operations of a row's forward and backward passes."""
    return 6 * config.sequence_length * model_config.embed_dim


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns Σ f(x) (w_i · w̃_j + b_i + b̃_j − log x)², the number of records, and no metrics.

    f(x) = min(1, (x / x_max)^alpha). Source: Pennington et al. 2014, eq. 8 and 9.

    Args:
      model: WordEmbeddings with biases.
      params: its parameters.
      batch: from `make_batch`.
      config: `words.x_max` and `words.alpha` are read.
      dropout_key: nothing is dropped.
    """
    centers_BL, contexts_BL, counts_BL = (batch[f'{name}_BL'] for name in ('centers', 'contexts', 'counts'))
    apply = lambda *ids, **options: model.apply({'params': params}, *ids, **options)  # noqa: E731
    scores_BL = jnp.sum(apply(centers_BL) * apply(contexts_BL, method='contexts'), axis=-1)
    scores_BL += apply(centers_BL, contexts_BL, method='biases')
    real_BL = counts_BL > 0
    logs_BL = jnp.log(jnp.where(real_BL, counts_BL, 1.0))
    weights_BL = jnp.minimum(1.0, (counts_BL / config.words.x_max) ** config.words.alpha) * real_BL
    return jnp.sum(weights_BL * jnp.square(scores_BL - logs_BL)), jnp.sum(real_BL.astype(jnp.float32)), {}
