"""Masked language modelling: some tokens are hidden, and guessed from both sides (Devlin et al. 2019).

R rows · T tokens in a row · B batch · L length · M hidden tokens
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from objectives import cross_entropy
from objectives.segments import documents, find_segments, is_special

SHORTEST_PASSAGE = 8  # tokens of another document that is worth being told apart


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model or tokenizer cannot do it."""
    cross_entropy.require('masked', model_config, 'encoder')
    if model_config.head == 'none':
        raise UserError("objective='masked' needs logits; use model.head='transform' or 'linear'.")
    if tokenizer.mask_id is None:
        raise UserError(
            "objective='masked' needs a tokenizer with a symbol for what is hidden; prepare the text with "
            "tokenizer.control_symbols=('<mask>',)."
        )
    if config.masking.next_sentence and (model_config.num_classes != 2 or model_config.token_types < 2):
        raise UserError(
            f'masking.next_sentence needs model.num_classes=2 and model.token_types=2; they are '
            f'{model_config.num_classes} and {model_config.token_types}.'
        )


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the model reads, and how many it guesses."""
    hidden = max(1, round(config.masking.rate * config.sequence_length))
    return cross_entropy.Lengths(config.sequence_length, predicted=hidden)


def make_batch(
    rows_RT: np.ndarray, *, tokenizer: Any, config: Any, seeds_R: np.ndarray
) -> dict[str, np.ndarray]:
    """Hides masking.rate of the tokens of each row, and keeps them as targets.

    Of those chosen, 80 % become the mask symbol, 10 % a random token, 10 % stay. A row's choice depends
    on its seed alone.

    Args:
      rows_RT: int32 ids [B, L + 1]; the last column is for what predicts the next token.
      tokenizer: special ids, `mask_id` and `word_starts` are read.
      config: `masking` is read.
      seeds_R: uint64.

    Returns:
      tokens_BL, targets_BL, segments_BL, positions_BL (int32), weights_BL (float32, 1 where a token was
      chosen), and hidden_BM (int32, the positions of the chosen, 0 where there are fewer).
      With masking.next_sentence, rows are pairs of passages: types_BL, and labels_B (1: they do not follow).
    """
    generators = [np.random.default_rng(seed) for seed in seeds_R]
    batch = {}
    if config.masking.next_sentence:
        pairs = [_pair(row[:-1], tokenizer, rng) for row, rng in zip(rows_RT, generators, strict=True)]
        targets_BL, types_BL, labels_B = (np.stack(parts) for parts in zip(*pairs, strict=True))
        segments_BL = (targets_BL != tokenizer.pad_id).astype(np.int32)
        positions_BL = np.broadcast_to(np.arange(targets_BL.shape[1], dtype=np.int32), targets_BL.shape)
        batch = {'types_BL': types_BL, 'labels_B': labels_B}
    else:
        targets_BL = rows_RT[:, :-1]
        segments_BL, positions_BL = find_segments(targets_BL, tokenizer)
    special_BL = is_special(targets_BL, tokenizer) | (segments_BL == 0)
    starts_BL = np.ones(targets_BL.shape, bool)
    if config.masking.whole_words:
        starts_BL = tokenizer.word_starts()[targets_BL]
        starts_BL[:, 1:] |= special_BL[:, :-1]
        starts_BL[:, 0] = True
    hidden_BM = np.zeros((len(targets_BL), lengths(config).predicted or 0), np.int32)
    weights_BL = np.zeros(targets_BL.shape, np.float32)
    tokens_BL = targets_BL.copy()
    for row, rng in enumerate(generators):
        chosen = _choose(~special_BL[row], starts_BL[row], config.masking.rate, rng)
        hidden_BM[row, : len(chosen)] = chosen
        weights_BL[row, chosen] = 1
        fate = rng.uniform(size=len(chosen))
        tokens_BL[row, chosen[fate < 0.8]] = tokenizer.mask_id
        replaced = chosen[fate >= 0.9]
        tokens_BL[row, replaced] = rng.integers(0, tokenizer.vocab_size, len(replaced))
    return batch | {
        'tokens_BL': tokens_BL,
        'targets_BL': targets_BL,
        'segments_BL': segments_BL,
        'positions_BL': positions_BL,
        'weights_BL': weights_BL,
        'hidden_BM': hidden_BM,
    }


def _choose(
    eligible_L: np.ndarray, starts_L: np.ndarray, rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns the positions to hide, in order: words at random, at most `rate` of the eligible tokens."""
    positions = np.flatnonzero(eligible_L)
    if not len(positions):
        return positions
    wanted = max(1, round(rate * len(positions)))
    words = np.cumsum(starts_L)[positions]
    words = np.unique(words, return_inverse=True)[1]
    order = rng.permutation(words.max() + 1)
    sizes = np.bincount(words)[order]
    taken, total = [], 0
    for word, size in zip(order.tolist(), sizes.tolist(), strict=True):
        if total + size <= wanted:
            taken.append(word)
            total += size
        if total == wanted:
            break
    if not taken:  # every word is longer than what may be hidden: its first tokens
        return positions[words == order[0]][:wanted]
    return positions[np.isin(words, taken)]


def _pair(
    row_L: np.ndarray, tokenizer: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.int32]:
    """Returns begin · A · end · B · end [L], types [L], and 0 if B follows A in the text, else 1.

    A begins the row's longest document. What does not follow it begins another document of the row or,
    where there is none, ends the same one.
    """
    texts = sorted(documents(row_L, tokenizer), key=len, reverse=True) or [row_L[:0]]
    first, others = texts[0], [text for text in texts[1:] if len(text) >= SHORTEST_PASSAGE]
    cut = rng.integers(len(first) // 4, len(first) // 2 + 1)
    label = rng.integers(2)
    following = first[cut:]
    if label:
        following = (
            others[rng.integers(len(others))] if others else first[cut + (len(first) - cut + 1) // 2 :]
        )
    room = len(row_L) - 3 - cut
    bos, eos = [tokenizer.bos_id], [tokenizer.eos_id]
    ids = np.concatenate([bos, first[:cut], eos, following[:room], eos]).astype(np.int32)
    padding = len(row_L) - len(ids)
    types = np.arange(len(row_L)) >= cut + 2
    return (
        np.pad(ids, (0, padding), constant_values=tokenizer.pad_id),
        (types & (np.arange(len(row_L)) < len(ids))).astype(np.int32),
        np.int32(label),
    )


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over the batch: of the loss, of the weights, and of metrics.

    A judgement of two passages counts as much as all hidden tokens of its row. Logits are computed for the
    chosen tokens alone.

    Args:
      model: a Transformer.
      params: its parameters.
      batch: from `make_batch`.
      config: the experiment; `label_smoothing` and `z_loss` are read.
      dropout_key: None computes without dropout.
    """
    names = ('tokens_BL', 'segments_BL', 'positions_BL', 'types_BL')
    hidden_BM = batch['hidden_BM']
    judged = 'labels_B' in batch
    output = cross_entropy.apply(
        model,
        params,
        batch,
        names,
        dropout_key,
        logits_at_BM=hidden_BM,
        output=('unembedding', 'classes') if judged else 'unembedding',
    )
    unembedding, classes_BC = output if judged else (output, None)
    targets_BM, weights_BM = (
        jnp.take_along_axis(batch[name], hidden_BM, axis=1) for name in ('targets_BL', 'weights_BL')
    )
    total, weight, sums = cross_entropy.sums(unembedding, targets_BM, weights_BM, config)
    if classes_BC is not None:
        judgements_B1 = cross_entropy.cross_entropy(classes_BC[:, None], batch['labels_B'][:, None]).nll
        sums['next_sentence'] = jnp.sum(judgements_B1[:, 0] * jnp.sum(weights_BM, axis=1))
        total += sums['next_sentence']
    return total, weight, sums
