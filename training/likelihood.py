"""How likely a causal model finds texts: log-probabilities of continuations, many at once.

R rows · L length · M positions that are scored · K continuations of a row · V vocabulary
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from model.transformer import Transformer
from parallel import rules

SHORTEST_ROW, FEWEST_SCORED = 32, 8  # tokens
MAX_TOKENS = 8192  # of a batch, on each device
MAX_LOGITS = 2**28  # of a batch, on each device: 1 GiB in float32

Pair = tuple[Sequence[int], Sequence[int]]  # context, which has a token at least, and its continuation


@dataclasses.dataclass(frozen=True)
class Row:
    """What a model reads, and the continuations that end with the token after it."""

    tokens: tuple[int, ...]
    asked: Mapping[int, Sequence[int]]  # number of a pair → its continuation


def score(model: Transformer, params: Any, pairs: Sequence[Pair]) -> Iterator[tuple[int, tuple[float, bool]]]:
    """Yields (number of a pair, (Σ log p(continuation | context) in nats, whether it is greedy)).

    In an order of its own: batch by batch, longest first. Greedy continuations have the likeliest token each
    time. Contexts lose their beginning where they do not fit; pairs that differ in the last token alone are
    computed together. Every process must ask for the same pairs, and gets all of them.

    Raises UserError if a continuation exceeds the model's max_length.
    """
    for (length, scored), rows in sorted(group(pairs, model.config.max_length).items(), reverse=True):
        size = batch_rows(length, scored, model.config.vocab_size, len(rows))
        width = _round_up(max(len(row.asked) for row in rows))
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            arrays = _lay_out(batch, (size, length, scored, width))
            log_p_RMK, greedy_RMK = jax.device_get(_log_p(params, *arrays, model=model))
            for r, row in enumerate(batch):
                for k, (number, continuation) in enumerate(row.asked.items()):
                    first = scored - len(continuation)
                    total = log_p_RMK[r, first:, k].sum(dtype=np.float64)
                    yield number, (float(total), bool(greedy_RMK[r, first:, k].all()))


def windows(tokens: Sequence[int], prefix: int, max_length: int) -> Iterator[Pair]:
    """Yields pairs that cut a text of any length: each token is scored once, with what fits before it.

    prefix: what stands before the first token. The last window is filled up with context from the one before.
    """
    known = [prefix, *tokens]
    for start in range(0, len(tokens), max_length):
        end = min(start + max_length, len(tokens))
        yield known[max(0, end - max_length) : start + 1], tokens[start:end]


def group(pairs: Sequence[Pair], max_length: int) -> dict[tuple[int, int], list[Row]]:
    """Returns rows by the shape (L, M) that they are computed in; each shape is one compiled program."""
    asked: dict[tuple[int, ...], dict[int, Sequence[int]]] = defaultdict(dict)
    for number, (context, continuation) in enumerate(pairs):
        if len(continuation) > max_length:
            raise UserError(
                f'a text of {len(continuation)} tokens is to be scored at once, and the model reads '
                f'model.max_length={max_length}; choose a model that reads more, or shorter texts.'
            )
        tokens = (*context, *continuation)[-max_length - 1 : -1]
        asked[tuple(map(int, tokens))][number] = continuation
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for tokens, continuations in asked.items():
        length = min(_round_up(len(tokens), SHORTEST_ROW), max_length)
        scored = _round_up(max(map(len, continuations.values())), FEWEST_SCORED, step=4)
        groups[length, min(scored, length)].append(Row(tokens, continuations))
    return groups


def batch_rows(length: int, scored: int, vocab_size: int, wanted: int) -> int:
    """Returns how many rows are computed at once on all devices: as many as fit, or as are wanted."""
    shards = rules.num_shards('batch')
    fit = max(1, min(MAX_TOKENS // length, MAX_LOGITS // (scored * vocab_size)))
    return shards * min(1 << (fit.bit_length() - 1), _round_up(-(-wanted // shards)))


def _lay_out(rows: Sequence[Row], shape: tuple[int, int, int, int]) -> tuple[np.ndarray, ...]:
    """Returns tokens [R, L] with zeros to the right, which nothing sees; positions [R, M]; targets [R, M, K].

    A row's last M positions are scored. Its continuations stand at the end of M.
    """
    size, length, scored, width = shape
    tokens_RL = np.zeros((size, length), np.int32)
    at_RM = np.zeros((size, scored), np.int32)
    targets_RMK = np.zeros((size, scored, width), np.int32)
    for r, row in enumerate(rows):
        tokens_RL[r, : len(row.tokens)] = row.tokens
        at_RM[r] = np.maximum(len(row.tokens) - scored + np.arange(scored), 0)
        for k, continuation in enumerate(row.asked.values()):
            targets_RMK[r, scored - len(continuation) :, k] = continuation
    return tokens_RL, at_RM, targets_RMK


@functools.partial(jax.jit, static_argnames='model')
def _log_p(
    params: Any, tokens_RL: jax.Array, at_RM: jax.Array, targets_RMK: jax.Array, *, model: Transformer
) -> tuple[jax.Array, jax.Array]:
    """Returns log p of the targets, float32, and whether nothing is likelier, [R, M, K]."""
    logits_RMV = model.apply({'params': params}, tokens_RL, logits_at_BM=at_RM)
    assert isinstance(logits_RMV, jax.Array)
    logits_RMV = logits_RMV.astype(jnp.float32)
    log_z_RM = jax.nn.logsumexp(logits_RMV, axis=-1)
    log_p_RMK = jnp.take_along_axis(logits_RMV, targets_RMK, axis=-1) - log_z_RM[..., None]
    greedy_RMK = targets_RMK == jnp.argmax(logits_RMV, axis=-1)[..., None]
    return rules.constrain(log_p_RMK, None, None, None), rules.constrain(greedy_RMK, None, None, None)


def _round_up(size: int, smallest: int = 1, step: int = 2) -> int:
    """Returns the smallest of `smallest`, `smallest` · step, … that is at least `size`."""
    rounded = smallest
    while rounded < size:
        rounded *= step
    return rounded
