"""Spans: an encoder marks the first and the last token of an answer (Devlin et al. 2019, section 4.2).

B batch · L length
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from objectives import cross_entropy
from objectives.task_rows import Example, Row, codes, place


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if the model is no encoder that marks spans."""
    cross_entropy.require('span', model_config, 'encoder')
    if not model_config.span_head:
        raise UserError("objective='span' needs model.span_head=True.")


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the model reads."""
    return cross_entropy.Lengths(config.sequence_length, predicted=0)


def row(config: Any) -> Row:
    """Returns what a row has room for: one window of a context."""
    return Row(config.sequence_length, answers=0, examples=1)


def lay_out(examples: Sequence[Example], config: Any) -> np.ndarray:
    """Returns a window as a row int32 [2 L + 2]: tokens, 2 + type, 1 + first and 1 + last of the answer."""
    length = config.sequence_length
    answer = examples[0].answer if len(examples[0].answer) else np.zeros(2, np.int32)
    return np.concatenate([place(examples, length), codes(examples, length), answer])


def make_batch(rows_RT: np.ndarray, *, config: Any, **_: Any) -> dict[str, np.ndarray]:
    """Splits rows from `lay_out`.

    Returns tokens_BL, types_BL, segments_BL, positions_BL, starts_B, ends_B (int32) and weights_B (float32, 0
    where no answer is known).
    """
    length = config.sequence_length
    tokens_BL, codes_BL, answers_B2 = np.split(rows_RT, [length, 2 * length], axis=1)
    return {
        'tokens_BL': tokens_BL,
        'types_BL': codes_BL % 2,
        'segments_BL': codes_BL // 2,
        'positions_BL': np.broadcast_to(np.arange(length, dtype=np.int32), tokens_BL.shape),
        'starts_B': np.maximum(answers_B2[:, 0] - 1, 0),
        'ends_B': np.maximum(answers_B2[:, 1] - 1, 0),
        'weights_B': (answers_B2[:, 0] > 0).astype(np.float32),
    }


def logits(
    model: Any, params: Any, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
) -> jax.Array:
    """Returns float32 [B, 2, L]: of each position as the first and as the last of the answer."""
    names = ('tokens_BL', 'segments_BL', 'positions_BL', 'types_BL')
    known_types = jnp.minimum(batch['types_BL'], max(model.config.token_types - 1, 0))  # RoBERTa has one
    batch = batch | {'types_BL': known_types}
    spans_BL2 = cross_entropy.apply(model, params, batch, names, dropout_key, output='spans')
    spans_B2L = jnp.swapaxes(spans_BL2.astype(jnp.float32), 1, 2)
    return jnp.where(batch['segments_BL'][:, None] > 0, spans_B2L, -1e9)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over windows: mean of both cross-entropies, weights, `accuracy` in percent."""
    logits_B2L = logits(model, params, batch, dropout_key)
    targets_B2 = jnp.stack([batch['starts_B'], batch['ends_B']], axis=1)
    losses_B = jnp.mean(cross_entropy.cross_entropy(logits_B2L, targets_B2).loss, axis=1)
    right_B = jnp.all(jnp.argmax(logits_B2L, axis=-1) == targets_B2, axis=1)
    weights_B = batch['weights_B']
    return jnp.sum(losses_B * weights_B), jnp.sum(weights_B), {'accuracy': 100 * jnp.sum(right_B * weights_B)}
