"""Classification: an encoder says of each text which class, or with several which classes, it has.

B batch · L length · F texts in a row · A numbers of an answer: 1, or one for each class · C classes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from objectives import cross_entropy
from objectives.segments import restart
from objectives.task_rows import Example, Row, codes, place

TOKENS_OF_A_TEXT = 16  # on average, of a full row


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if the model is no encoder with a class for each label."""
    cross_entropy.require('classification', model_config, 'encoder')
    if model_config.num_classes != len(config.task.labels):
        raise UserError(
            f'model.num_classes={model_config.num_classes}, but task.labels has {len(config.task.labels)}: '
            f'{config.task.labels}. Leave model.num_classes to the task.'
        )


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the model reads."""
    return cross_entropy.Lengths(config.sequence_length, predicted=0)


def row(config: Any) -> Row:
    """Returns what a row has room for."""
    return Row(config.sequence_length, answers=0, examples=max(1, config.sequence_length // TOKENS_OF_A_TEXT))


def lay_out(examples: Sequence[Example], config: Any) -> np.ndarray:
    """Returns texts side by side as a row int32 [2 L + F (1 + A)].

    Tokens, 2 · segment + type, 1 + where each text begins, and the answers of each.
    """
    room = row(config)
    starts = np.cumsum([0, *(len(example.tokens_T) for example in examples)])[:-1]
    begins = np.zeros(room.examples, np.int32)
    begins[: len(starts)] = 1 + starts
    answers_FA = np.zeros((room.examples, _answer_size(config)), np.int32)
    for number, example in enumerate(examples):
        answers_FA[number, : len(example.answer)] = example.answer
    parts = [place(examples, room.tokens), codes(examples, room.tokens), begins, answers_FA.ravel()]
    return np.concatenate(parts)


def _answer_size(config: Any) -> int:
    return len(config.task.labels) if config.task.multi_label else 1


def make_batch(rows_RT: np.ndarray, *, config: Any, **_: Any) -> dict[str, np.ndarray]:
    """Splits rows from `lay_out` into tokens, types, segments, positions, and the answers of their texts.

    Returns tokens_BL, types_BL, segments_BL, positions_BL, first_at_BF, answers_BFA (int32; 0: none) and
    weights_BF (float32): 1, or with task.balance_classes what makes all classes weigh alike.
    """
    room = row(config)
    at = np.cumsum([room.tokens, room.tokens, room.examples])
    tokens_BL, codes_BL, begins_BF, answers = np.split(rows_RT, at, axis=1)
    segments_BL = codes_BL // 2
    answers_BFA = answers.reshape(len(rows_RT), room.examples, -1)
    weights_BF = ((begins_BF > 0) & (answers_BFA[..., 0] > 0)).astype(np.float32)
    if config.task.class_weights and not config.task.multi_label:
        weights_C = np.array([0.0, *config.task.class_weights], np.float32)
        weights_BF *= weights_C[answers_BFA[..., 0]]
    return {
        'tokens_BL': tokens_BL,
        'types_BL': codes_BL % 2,
        'segments_BL': segments_BL,
        'positions_BL': restart(np.diff(segments_BL, axis=1, prepend=0) != 0),
        'first_at_BF': np.maximum(begins_BF - 1, 0),
        'answers_BFA': answers_BFA,
        'weights_BF': weights_BF,
    }


def logits(
    model: Any, params: Any, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
) -> jax.Array:
    """Returns float32 [B, F, C] of the texts of each row."""
    names = ('tokens_BL', 'segments_BL', 'positions_BL', 'types_BL', 'first_at_BF')
    classes = cross_entropy.apply(model, params, batch, names, dropout_key, output='classes')
    return classes.astype(jnp.float32)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over the texts: of the loss, of the weights, and `accuracy`.

    The cross-entropy of the class; with task.multi_label the binary one, mean over classes.
    """
    logits_BFC = logits(model, params, batch, dropout_key)
    answers_BFA, weights_BF = batch['answers_BFA'], batch['weights_BF']
    if config.task.multi_label:
        true_BFC = answers_BFA == 2
        losses_BF = jnp.mean(jax.nn.softplus(jnp.where(true_BFC, -logits_BFC, logits_BFC)), axis=-1)
        right_BF = jnp.all((logits_BFC > 0) == true_BFC, axis=-1)
    else:
        labels_BF = jnp.maximum(answers_BFA[..., 0] - 1, 0)
        losses_BF = cross_entropy.cross_entropy(
            logits_BFC, labels_BF, label_smoothing=config.label_smoothing
        ).loss
        right_BF = jnp.argmax(logits_BFC, axis=-1) == labels_BF
    total = jnp.sum(losses_BF * weights_BF)
    return total, jnp.sum(weights_BF), {'accuracy': jnp.sum(right_BF * weights_BF)}
