"""Beam search over any function that maps tokens and a cache to logits and a cache.

Chooses what transformers chooses for the same logits: 2·M candidates a step, so that M go on whatever
ends in eos; those of the best M that end are finished; finished beams are ranked by log-probability
over length to a power. A score of -inf marks an empty place, in running and in finished beams.

B batch · M beams · N = B·M rows of the model · C = 2·M candidates · S token buffer · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.decoding import Decoding
from model.logits import Number, Processors, mask_vocabulary, process

# (tokens_N, positions_N, cache) → (logits_NV, cache)
Advance = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class Ranking(NamedTuple):
    """The numbers of beam search, as arrays: new values do not recompile."""

    max_new_tokens: Number
    length_penalty: Number
    stop_when_full: Number  # early_stopping=True
    hope_for_length: Number  # a running beam is judged as if it reached max_new_tokens


def make_ranking(decoding: Decoding) -> Ranking:
    """Returns what `decoding` asks for."""
    return Ranking(
        max_new_tokens=np.int32(decoding.max_new_tokens),
        length_penalty=np.float32(decoding.length_penalty),
        stop_when_full=np.bool_(decoding.early_stopping is True),
        hope_for_length=np.bool_(decoding.early_stopping == 'never' and decoding.length_penalty > 0),
    )


class Beams(NamedTuple):
    """The state of a search after `step` new tokens; beams stand best first."""

    step: jax.Array | int
    tokens_BMS: jax.Array
    scores_BM: jax.Array  # sums of log-probabilities
    finished_BMS: jax.Array
    finished_scores_BM: jax.Array
    open_B: jax.Array  # may a row's finished beams still change?


def search(
    advance: Advance,
    logits_BV: jax.Array,
    cache: Any,
    tokens_BS: jax.Array,
    lengths_B: jax.Array,
    open_B: jax.Array,
    *,
    num_beams: int,
    ranking: Ranking,
    processors: Processors,
) -> jax.Array:
    """Returns the best continuations of each row, best first.

    Args:
      advance: appends one token a row, at the given positions. What it closes over, such as the keys
        and values of an encoder, must have N rows.
      logits_BV: what follows the prompts.
      cache: of the prompts; a tree of arrays whose axis 0 is B, and N in `advance`.
      tokens_BS: prompts, with room for max_new_tokens after each.
      lengths_B: of the prompts.
      open_B: False for rows that are only padding.
      num_beams, ranking, processors: settings; two or more beams, static.

    Returns:
      tokens_BMS: prompts with their continuations, as in `tokens_BS` after eos. A row for which the
      processors left fewer than M continuations repeats its prompt alone.
    """
    lengths_N = jnp.repeat(lengths_B, num_beams)
    shape = (len(tokens_BS), num_beams)
    rows_BMS = jnp.repeat(tokens_BS[:, None], num_beams, axis=1)
    scores_BM = jnp.full(shape, -jnp.inf)
    # Only the first beam lives at first, lest all be the same.
    beams = Beams(0, rows_BMS, scores_BM.at[:, 0].set(0.0), rows_BMS, scores_BM, open_B)
    logits_NV = jnp.repeat(logits_BV, num_beams, axis=0)
    cache = jax.tree.map(lambda x: jnp.repeat(x, num_beams, axis=0), cache)
    beams, _ = extend(beams, logits_NV, lengths_B, ranking, processors)

    def unfinished(state: tuple[Beams, Any]) -> jax.Array:
        beams, _ = state
        return (beams.step < ranking.max_new_tokens) & jnp.any(beams.open_B)

    def body(state: tuple[Beams, Any]) -> tuple[Beams, Any]:
        beams, cache = state
        positions_N = lengths_N + beams.step - 1
        tokens_NS = beams.tokens_BMS.reshape(-1, beams.tokens_BMS.shape[-1])
        tokens_N = jnp.take_along_axis(tokens_NS, positions_N[:, None], axis=1)[:, 0]
        logits_NV, cache = advance(tokens_N, positions_N, cache)
        beams, parents_BM = extend(beams, logits_NV, lengths_B, ranking, processors)
        parents_N = (parents_BM + num_beams * jnp.arange(shape[0])[:, None]).ravel()
        return beams, jax.tree.map(lambda x: jnp.take(x, parents_N, axis=0), cache)

    beams, _ = jax.lax.while_loop(unfinished, body, (beams, cache))
    return beams.finished_BMS


def extend(
    beams: Beams, logits_NV: jax.Array, lengths_B: jax.Array, ranking: Ranking, processors: Processors
) -> tuple[Beams, jax.Array]:
    """Adds a token to every running beam, and finishes those that end; also returns parents [B, M]."""
    batch_size, num_beams, buffer_length = beams.tokens_BMS.shape
    vocab_size = logits_NV.shape[1]
    log_probs_NV = jax.nn.log_softmax(mask_vocabulary(logits_NV, processors.vocab_size))
    ends_N = jnp.repeat(lengths_B, num_beams) + beams.step
    tokens_NS = beams.tokens_BMS.reshape(-1, buffer_length)
    log_probs_NV = process(log_probs_NV, tokens_NS, ends_N, beams.step, processors)
    totals_BMV = beams.scores_BM[:, :, None] + log_probs_NV.reshape(batch_size, num_beams, vocab_size)
    # As many beams run on as there are, even if all that end come first.
    num_candidates = num_beams * (1 + len(processors.eos_ids_E))
    scores_BC, ids_BC = jax.lax.top_k(totals_BMV.reshape(batch_size, -1), num_candidates)
    parents_BC, new_BC = ids_BC // vocab_size, ids_BC % vocab_size

    length = beams.step + 1
    ends_BC = jnp.isin(new_BC, processors.eos_ids_E) | (length >= ranking.max_new_tokens)
    slots_B = lengths_B + beams.step

    def grow(parents_BM: jax.Array, new_BM: jax.Array) -> jax.Array:
        """Returns the parents' tokens with one more [B, M, S]."""
        return _take(beams.tokens_BMS, parents_BM).at[jnp.arange(batch_size), :, slots_B].set(new_BM)

    best = slice(num_beams)
    closing_BM = scores_BC[:, best] / _divisor(length, ranking)
    closing_BM = jnp.where(ends_BC[:, best] & beams.open_B[:, None], closing_BM, -jnp.inf)
    finished_scores_BM, chosen_BM = jax.lax.top_k(
        jnp.concatenate([beams.finished_scores_BM, closing_BM], axis=1), num_beams
    )
    closing_BMS = grow(parents_BC[:, best], new_BC[:, best])
    finished_BMS = _take(jnp.concatenate([beams.finished_BMS, closing_BMS], axis=1), chosen_BM)

    scores_BM, chosen_BM = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, scores_BC), num_beams)
    parents_BM = _take(parents_BC, chosen_BM)
    tokens_BMS = grow(parents_BM, _take(new_BC, chosen_BM))

    hoped_length = jnp.where(ranking.hope_for_length, ranking.max_new_tokens, length)
    hoped_B = scores_BM[:, 0] / _divisor(hoped_length, ranking)
    worst_B = jnp.min(finished_scores_BM, axis=1)
    open_B = beams.open_B & (hoped_B > worst_B) & ~(ranking.stop_when_full & (worst_B > -jnp.inf))
    return Beams(length, tokens_BMS, scores_BM, finished_BMS, finished_scores_BM, open_B), parents_BM


def _divisor(length: jax.Array | int, ranking: Ranking) -> jax.Array:
    return jnp.asarray(length, jnp.float32) ** ranking.length_penalty


def _take(x: jax.Array, indices_BM: jax.Array) -> jax.Array:
    """Returns the entries of each row of x [B, any, …] at its indices."""
    return jnp.take_along_axis(x, indices_BM.reshape(indices_BM.shape + (1,) * (x.ndim - 2)), axis=1)
