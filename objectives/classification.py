"""Classification: an encoder says of each text which class, or with several which classes, it has.

Texts without a class can be learnt from too (UDA, Xie et al. 2020; FixMatch, Sohn et al. 2020): where the
model is certain of a text as it is, it is to say the same of it with noise: dropout and hidden tokens.

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
    if config.task.mask_rate and (model_config.dropout_rate == 0 or tokenizer.mask_id is None):
        raise UserError(
            f'task.mask_rate={config.task.mask_rate} is noise of training, which needs model.dropout_rate '
            f'above 0 (it is {model_config.dropout_rate}) and a tokenizer with a mask (it has '
            f'{"none" if tokenizer.mask_id is None else "one"}).'
        )
    if config.task.consistency and (config.task.multi_label or not model_config.dropout_rate):
        raise UserError(
            f'task.consistency={config.task.consistency} is for single classes and needs noise: '
            'task.multi_label=False and model.dropout_rate above 0.'
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


def make_batch(
    rows_RT: np.ndarray, *, config: Any, tokenizer: Any = None, seeds_R: Sequence[int] = (), **_: Any
) -> dict[str, np.ndarray]:
    """Splits rows from `lay_out` into tokens, types, segments, positions, and the answers of their texts.

    Returns tokens_BL, types_BL, segments_BL, positions_BL, first_at_BF, answers_BFA (int32; 0: none),
    weights_BF (float32: 1, task.class_weights of the class, task.consistency where there is none) and, with
    task.mask_rate, noisy_BL: the tokens, some of them hidden as seeds_R decide.
    """
    room = row(config)
    at = np.cumsum([room.tokens, room.tokens, room.examples])
    tokens_BL, codes_BL, begins_BF, answers = np.split(rows_RT, at, axis=1)
    segments_BL = codes_BL // 2
    answers_BFA = answers.reshape(len(rows_RT), room.examples, -1)
    weights_BF = np.where(answers_BFA[..., 0] > 0, 1.0, config.task.consistency) * (begins_BF > 0)
    if config.task.class_weights and not config.task.multi_label:
        weights_C = np.array([1.0, *config.task.class_weights])
        weights_BF *= weights_C[answers_BFA[..., 0]]
    noisy = {}
    if config.task.mask_rate and len(seeds_R):
        hidden_BL = np.stack(
            [
                np.random.default_rng(seed).uniform(size=room.tokens) < config.task.mask_rate
                for seed in seeds_R
            ]
        )
        special_BL = np.isin(tokens_BL, (tokenizer.bos_id, tokenizer.eos_id)) | (segments_BL == 0)
        noisy['noisy_BL'] = np.where(hidden_BL & ~special_BL, tokenizer.mask_id, tokens_BL)
    return noisy | {
        'tokens_BL': tokens_BL,
        'types_BL': codes_BL % 2,
        'segments_BL': segments_BL,
        'positions_BL': restart(np.diff(segments_BL, axis=1, prepend=0) != 0),
        'first_at_BF': np.maximum(begins_BF - 1, 0),
        'answers_BFA': answers_BFA,
        'weights_BF': weights_BF.astype(np.float32),
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
    """Returns float32 sums over the texts: of the loss, of the weights, and of `accuracy` in percent.

    The cross-entropy of the class; with task.multi_label the binary one, mean over classes. In training, a
    text without a class has the one that the model is certain of without noise, or else the loss 0; `guessed`
    is the share of these. Evaluation leaves such texts out.
    """
    answers_BFA, weights_BF = batch['answers_BFA'], batch['weights_BF']
    known_BF = answers_BFA[..., 0] > 0
    noisy = (
        batch | {'tokens_BL': batch.get('noisy_BL', batch['tokens_BL'])} if dropout_key is not None else batch
    )
    logits_BFC = logits(model, params, noisy, dropout_key)
    if config.task.consistency and dropout_key is not None:
        clear_BFC = jax.nn.softmax(jax.lax.stop_gradient(logits(model, params, batch)))
        certain_BF = jnp.max(clear_BFC, axis=-1) >= config.task.consistency_threshold
        guessed_BF = jnp.where(certain_BF, 1 + jnp.argmax(clear_BFC, axis=-1), 0)
        answers_BFA = jnp.where(known_BF, answers_BFA[..., 0], guessed_BF)[..., None]
    else:
        weights_BF = weights_BF * known_BF
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
    total = jnp.sum(losses_BF * weights_BF * (answers_BFA[..., 0] > 0))
    if config.task.consistency and dropout_key is not None:
        metrics = {'guessed': jnp.sum(weights_BF * (~known_BF & (answers_BFA[..., 0] > 0)))}
    else:
        metrics = {'accuracy': 100 * jnp.sum(right_BF * weights_BF)}
    return total, jnp.sum(weights_BF), metrics
