"""Text generation with a key/value cache, the whole of it inside one jit.

Prompts stand at the left of a buffer and grow to the right, each row at its own length. Slot s of
the cache holds position s, and a query sees the slots up to its own position, so what a shorter
prompt's padding wrote is overwritten before anything sees it.

B batch · P prompt buffer · S cache and token buffer · V vocabulary
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from model.attention import init_cache
from model.transformer import Transformer
from parallel.rules import constrain

SMALLEST_BUFFER = 32


def generate(
    model: Transformer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    key: jax.Array,
    eos_id: int,
    pad_id: int,
    vocab_size: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> np.ndarray:
    """Continues prompts, greedily or by sampling.

    Row r draws from `fold_in(key, r)`, so its text does not depend on the other rows. Batch and
    lengths are rounded up to powers of two: few shapes are ever compiled.

    Args:
      prompts: token ids, at least one each.
      max_new_tokens: a row ends here or after eos.
      key: of the random numbers.
      eos_id, pad_id: ids that end a row and fill what follows.
      vocab_size: ids from it on are never produced, as the model's vocabulary is padded; None: all may be.
      temperature: divides the logits; 0 takes the most probable token.
      top_k: only the k most probable tokens may be drawn; 0: all.
      top_p: only the smallest set of most probable tokens may be drawn whose probabilities, after
        temperature and top_k, sum to p or more (Holtzman et al. 2020); 1: all.

    Returns:
      New tokens, int32 [len(prompts), max_new_tokens]: eos included, pad_id after it.

    Raises:
      UserError: if a value is out of range, or a prompt and its continuation exceed max_length.
    """
    _check(model, prompts, max_new_tokens, temperature, top_k, top_p)
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    longest, max_length = int(lengths.max()), model.config.max_length
    rows = _bucket(len(prompts), smallest=1)
    prompt_length = min(_bucket(longest), max_length)
    buffer_length = min(_bucket(longest + max_new_tokens), max_length)

    prompts_BP = np.full((rows, prompt_length), pad_id, np.int32)
    for row, prompt in zip(prompts_BP, prompts, strict=False):
        row[: len(prompt)] = prompt
    sampler = Sampler(
        vocab_size=np.int32(vocab_size or model.config.vocab_size),
        temperature=np.float32(temperature),
        top_k=np.int32(top_k or model.config.vocab_size),
        top_p=np.float32(top_p),
    )
    buffer_BS = _decode(
        params,
        prompts_BP,
        np.pad(lengths, (0, rows - len(prompts)), constant_values=1),
        np.arange(rows) >= len(prompts),
        key,
        sampler,
        np.int32(max_new_tokens),
        np.int32(eos_id),
        np.int32(pad_id),
        model=model,
        buffer_length=buffer_length,
        greedy=temperature == 0,
        filtered=top_k > 0 or top_p < 1,
    )
    columns = lengths[:, None] + np.arange(max_new_tokens)
    return np.take_along_axis(np.asarray(buffer_BS)[: len(prompts)], columns, axis=1)


class Sampler(NamedTuple):
    """The numbers of `generate`, as arrays: new values do not recompile. top_k is V when off."""

    vocab_size: jax.Array | np.int32
    temperature: jax.Array | np.float32
    top_k: jax.Array | np.int32
    top_p: jax.Array | np.float32


@functools.partial(jax.jit, static_argnames=('model', 'buffer_length', 'greedy', 'filtered'))
def _decode(
    params: Any,
    prompts_BP: jax.Array,
    lengths_B: jax.Array,
    done_B: jax.Array,
    key: jax.Array,
    sampler: Sampler,
    max_new_tokens: jax.Array,
    eos_id: jax.Array,
    pad_id: jax.Array,
    *,
    model: Transformer,
    buffer_length: int,
    greedy: bool,
    filtered: bool,
) -> jax.Array:
    """Returns prompts with their continuations [B, S]."""
    batch_size, prompt_length = prompts_BP.shape
    rows_B = jnp.arange(batch_size)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, rows_B)

    def emit(step, logits_BV, buffer_BS, done_B):
        """Writes the tokens that follow from the logits; returns them too."""
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        token_B = sample(logits_BV, step_keys_B, sampler, greedy=greedy, filtered=filtered)
        token_B = jnp.where(done_B, pad_id, token_B)
        buffer_BS = buffer_BS.at[rows_B, lengths_B + step].set(token_B, mode='drop')
        return token_B, buffer_BS, done_B | (token_B == eos_id)

    def unfinished(state):
        step, _, _, done_B, _ = state
        return (step < max_new_tokens) & ~jnp.all(done_B)

    def advance(state):
        step, token_B, buffer_BS, done_B, cache = state
        positions_B1 = (lengths_B + step - 1)[:, None]
        logits_B1V, cache = model.apply(
            {'params': params}, token_B[:, None], positions_BL=positions_B1, cache=cache
        )
        return step + 1, *emit(step, logits_B1V[:, 0], buffer_BS, done_B), cache

    buffer_BS = jnp.full((batch_size, buffer_length), pad_id).at[:, :prompt_length].set(prompts_BP)
    cache = init_cache(model.config, batch_size, buffer_length)
    logits_B1V, cache = model.apply({'params': params}, prompts_BP, cache=cache, logits_at_B=lengths_B - 1)
    state = (1, *emit(0, logits_B1V[:, 0], buffer_BS, done_B), cache)
    _, _, buffer_BS, _, _ = jax.lax.while_loop(unfinished, advance, state)
    return constrain(buffer_BS, None, None)  # whole on every process


def sample(
    logits_BV: jax.Array, keys_B: jax.Array, sampler: Sampler, *, greedy: bool, filtered: bool
) -> jax.Array:
    """Draws one id per row, int32 [B], each with its own key.

    Args:
      greedy: take the most probable id (the lowest of equals) instead.
      filtered: apply top_k and top_p, which costs a sort of the vocabulary.
    """
    ids_V = jnp.arange(logits_BV.shape[1])
    logits_BV = jnp.where(ids_V < sampler.vocab_size, logits_BV.astype(jnp.float32), -jnp.inf)
    if greedy:
        return jnp.argmax(logits_BV, axis=-1)
    logits_BV /= sampler.temperature
    draw = jax.vmap(jax.random.categorical)
    if not filtered:
        return draw(keys_B, logits_BV)

    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    sorted_BV = jnp.where(ids_V < sampler.top_k, sorted_BV, -jnp.inf)
    probabilities_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
    rank_B = draw(keys_B, jnp.where(before_BV < sampler.top_p, sorted_BV, -jnp.inf))
    return jnp.take_along_axis(order_BV, rank_B[:, None], axis=-1)[:, 0]


def _bucket(size: int, smallest: int = SMALLEST_BUFFER) -> int:
    """Rounds up to a power of two."""
    return max(smallest, 1 << (size - 1).bit_length())


def _check(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    """Raises UserError for values out of range."""
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError('A prompt is empty; give at least one prompt, of at least one token (bos will do).')
    if max_new_tokens < 1:
        raise UserError(f'max_new_tokens={max_new_tokens} must be at least 1.')
    if temperature < 0:
        raise UserError(f'temperature={temperature} must be at least 0 (0 takes the most probable token).')
    if top_k < 0:
        raise UserError(f'top_k={top_k} must be at least 0 (0 leaves all tokens).')
    if not 0 < top_p <= 1:
        raise UserError(f'top_p={top_p} is not in (0, 1] (1 leaves all tokens).')
    longest, max_length = max(map(len, prompts)), model.config.max_length
    if longest + max_new_tokens > max_length:
        raise UserError(
            f'A prompt of {longest} tokens and max_new_tokens={max_new_tokens} exceed '
            f'model.max_length={max_length}; shorten one of them.'
        )
