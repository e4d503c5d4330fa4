"""What is done to scores before a token is chosen, in the order of transformers, and the choice itself.

Scores are logits, or log-probabilities in beam search. What a text already holds stands at the left of a
buffer; slots from its length on are not looked at.

B batch · S token buffer · V vocabulary
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from model.decoding import Decoding

Number = jax.Array | np.int32 | np.float32 | np.bool_


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Processors:
    """The numbers of a Decoding, as arrays: new values do not recompile. None is off, at no cost."""

    vocab_size: Number
    eos_ids_E: np.ndarray | jax.Array  # a text ends with any of them
    repetition_penalty: Number | None = None
    min_new_tokens: Number | None = None
    temperature: Number | None = None  # None takes the most probable token
    top_k: Number | None = None  # with top_p or not at all; V lets all tokens through
    top_p: Number | None = None
    no_repeat_ngram_size: int = dataclasses.field(default=0, metadata={'static': True})


def make_processors(decoding: Decoding, *, vocab_size: int, eos_id: int) -> Processors:
    """Returns what `decoding` asks for; ids from `vocab_size` on are never produced."""
    penalty, minimum, temperature = (
        decoding.repetition_penalty,
        decoding.min_new_tokens,
        decoding.temperature,
    )
    filtered = temperature > 0 and (decoding.top_k > 0 or decoding.top_p < 1)
    return Processors(
        vocab_size=np.int32(vocab_size),
        eos_ids_E=np.array(decoding.eos_ids or (eos_id,), np.int32),
        repetition_penalty=np.float32(penalty) if penalty != 1 else None,
        min_new_tokens=np.int32(minimum) if minimum else None,
        temperature=np.float32(temperature) if temperature else None,
        top_k=np.int32(decoding.top_k or vocab_size) if filtered else None,
        top_p=np.float32(decoding.top_p) if filtered else None,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
    )


def mask_vocabulary(logits_BV: jax.Array, vocab_size: Number) -> jax.Array:
    """Returns float32 logits, -inf for ids past the vocabulary, which a padded table has."""
    ids_V = jnp.arange(logits_BV.shape[-1])
    return jnp.where(ids_V < vocab_size, logits_BV.astype(jnp.float32), -jnp.inf)


def process(
    scores_BV: jax.Array,
    tokens_BS: jax.Array,
    lengths_B: jax.Array,
    num_new: jax.Array | int,
    processors: Processors,
) -> jax.Array:
    """Applies what greedy choice, sampling and beam search share.

    Args:
      scores_BV: float32.
      tokens_BS, lengths_B: prompts with what has been added, and how much of each row that is.
      num_new: tokens added so far.
      processors: which to apply.
    """
    if processors.repetition_penalty is not None:
        scores_BV = penalize_repetition(scores_BV, tokens_BS, lengths_B, processors.repetition_penalty)
    if processors.no_repeat_ngram_size:
        scores_BV = forbid_ngrams(scores_BV, tokens_BS, lengths_B, processors.no_repeat_ngram_size)
    if processors.min_new_tokens is not None:
        eos_V = jnp.isin(jnp.arange(scores_BV.shape[1]), processors.eos_ids_E)
        scores_BV = jnp.where(eos_V & (num_new < processors.min_new_tokens), -jnp.inf, scores_BV)
    return scores_BV


def penalize_repetition(
    scores_BV: jax.Array, tokens_BS: jax.Array, lengths_B: jax.Array, penalty: Number
) -> jax.Array:
    """Divides the positive scores of tokens a row holds by `penalty` and multiplies the negative ones.

    Source: Keskar et al. 2019, section 4.1, with the sign's treatment of transformers.
    """
    held_BS = jnp.arange(tokens_BS.shape[1]) < lengths_B[:, None]
    held_BV = _mark(held_BS, tokens_BS, scores_BV.shape[1])
    return jnp.where(held_BV, jnp.where(scores_BV < 0, scores_BV * penalty, scores_BV / penalty), scores_BV)


def forbid_ngrams(scores_BV: jax.Array, tokens_BS: jax.Array, lengths_B: jax.Array, size: int) -> jax.Array:
    """Returns scores with -inf for tokens that would complete a sequence of `size` a row already holds."""
    num_windows = tokens_BS.shape[1] - size + 1
    if num_windows < 1:
        return scores_BV
    suffix_B = jnp.maximum(lengths_B - size + 1, 0)  # where the last size - 1 tokens begin
    repeated_BW = jnp.arange(num_windows) + size <= lengths_B[:, None]
    for offset in range(size - 1):
        token_B1 = jnp.take_along_axis(tokens_BS, suffix_B[:, None] + offset, axis=1)
        repeated_BW &= tokens_BS[:, offset : offset + num_windows] == token_B1
    last_BW = tokens_BS[:, size - 1 :]
    return jnp.where(_mark(repeated_BW, last_BW, scores_BV.shape[1]), -jnp.inf, scores_BV)


def _mark(chosen_BS: jax.Array, tokens_BS: jax.Array, vocab_size: int) -> jax.Array:
    """Returns booleans [B, V]: is the id among a row's chosen tokens?"""
    rows_B1 = jnp.arange(tokens_BS.shape[0])[:, None]
    return jnp.zeros((tokens_BS.shape[0], vocab_size), bool).at[rows_B1, tokens_BS].max(chosen_BS)


def sample(logits_BV: jax.Array, keys_B: jax.Array, processors: Processors) -> jax.Array:
    """Draws one id per row, int32 [B], each with its own key, after temperature, top_k and top_p.

    Without a temperature it takes the most probable id, the lowest of equals. Filtering costs a
    sort of the vocabulary.
    """
    if processors.temperature is None:
        return jnp.argmax(logits_BV, axis=-1)
    logits_BV /= processors.temperature
    draw = jax.vmap(jax.random.categorical)
    if processors.top_k is None or processors.top_p is None:
        return draw(keys_B, logits_BV)

    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    ranks_V = jnp.arange(logits_BV.shape[1])
    sorted_BV = jnp.where(ranks_V < processors.top_k, sorted_BV, -jnp.inf)
    probabilities_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
    rank_B = draw(keys_B, jnp.where(before_BV < processors.top_p, sorted_BV, -jnp.inf))
    return jnp.take_along_axis(order_BV, rank_B[:, None], axis=-1)[:, 0]
