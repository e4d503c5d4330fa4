"""Text generation with a key/value cache, its loops inside jit.

Prompts stand at the left of a buffer and grow to the right, each row at its own length. Slot s of
the cache holds position s, and a query sees the slots up to its own position, so what a shorter
prompt's padding wrote is overwritten before anything sees it. An encoder-decoder reads its prompt in the
encoder, and its text grows from a single pad, as in T5 and Marian.

B batch · M beams · P prompt buffer · S cache and token buffer · T new tokens · V vocabulary
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from model import beam_search
from model.attention import Caches, init_cache
from model.decoding import Decoding
from model.held import hold
from model.logits import Number, Processors, make_processors, mask_vocabulary, process, sample
from model.transformer import Transformer, separate, unstack
from parallel.rules import constrain

SMALLEST_BUFFER = 32

# Given each row's new tokens so far, up to its eos, returns after how many each ends; None: it goes on.
Watch = Callable[[list[np.ndarray]], Sequence[int | None]]


def generate(
    model: Transformer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    key: jax.Array,
    eos_id: int,
    pad_id: int,
    vocab_size: int | None = None,
    watch: Watch | None = None,
    watch_every: int = 16,
) -> np.ndarray:
    """Continues prompts, or answers them in an encoder-decoder: greedily, by sampling, or by beam search.

    Row r draws from `fold_in(key, r)`, so its text does not depend on the other rows. Batch and
    lengths are rounded up to powers of two: few shapes are ever compiled.

    Args:
      prompts: token ids, at least one each.
      decoding: how tokens are chosen, and how many.
      key: of the random numbers.
      eos_id, pad_id: ids that end a row, unless `decoding` has others, and fill what follows; eos_id=-1: none
        ends it.
      vocab_size: ids from it on are never produced, as the model's vocabulary is padded; None: all may be.
      watch: looks at the new tokens every `watch_every`, and may end rows; not with beams.

    Returns:
      New tokens, int32 [len(prompts) · num_return_sequences, max_new_tokens]: eos included, pad_id after it.

    Raises:
      UserError: if a prompt is empty, or a prompt and its continuation exceed max_length.
    """
    _check(model, prompts, decoding)
    if watch is not None and decoding.num_beams > 1:
        raise ValueError('Beams cannot be watched: which of them is returned is decided at the end.')
    max_length = model.config.max_length
    encoded = None
    if model.config.encoder_layers:
        encoded = _to_rows(prompts, pad_id, max_length)
        prompts = [[pad_id]] * len(prompts)
    longest = max(map(len, prompts))
    prompts_BP, lengths_B = _to_rows(prompts, pad_id, max_length)
    rows = len(lengths_B)
    request = Request(
        prompts_BP,
        lengths_B,
        encoded,
        is_padding_B=np.arange(rows) >= len(prompts),
        key=key,
        pad_id=np.int32(pad_id),
        processors=make_processors(decoding, vocab_size=vocab_size or model.config.vocab_size, eos_id=eos_id),
    )
    layers = _hold(params, dtype=model.config.compute_dtype) if _holds() else params
    buffer_length = min(_bucket(longest + decoding.max_new_tokens), max_length)
    columns_BT = lengths_B[: len(prompts), None] + np.arange(decoding.max_new_tokens)

    if decoding.num_beams > 1:
        ranking = beam_search.make_ranking(decoding)
        static = {'model': model, 'buffer_length': buffer_length, 'num_beams': decoding.num_beams}
        tokens_BMS = np.asarray(_search(params, layers, request, ranking, **static))[: len(prompts)]
        chosen_BMS = tokens_BMS[:, : decoding.num_return_sequences]
        new_BMT = np.take_along_axis(chosen_BMS, columns_BT[:, None], axis=2)
        return new_BMT.reshape(-1, decoding.max_new_tokens)

    state = _begin(params, request, model=model, buffer_length=buffer_length)
    if watch is None:
        state = _extend(layers, request, state, np.int32(decoding.max_new_tokens), model=model)
        return np.take_along_axis(np.asarray(state.tokens_BS)[: len(prompts)], columns_BT, axis=1)
    return _watched(layers, request, state, columns_BT, watch, watch_every, model)


def _watched(
    layers: Any,
    request: Request,
    state: State,
    columns_BT: np.ndarray,
    watch: Watch,
    watch_every: int,
    model: Transformer,
) -> np.ndarray:
    """Extends a few tokens at a time and returns the new ones [B, T]; rows end where `watch` says."""
    num_rows, max_new_tokens = columns_BT.shape
    ended_B = request.is_padding_B.copy()
    until = 0
    while True:
        until = min(until + watch_every, max_new_tokens)
        request = request._replace(is_padding_B=ended_B)
        state = _extend(layers, request, state, np.int32(until), model=model)
        new_BT = np.take_along_axis(np.asarray(state.tokens_BS)[:num_rows], columns_BT, axis=1)
        texts = [_up_to(row[:until], request.processors.eos_ids_E) for row in new_BT]
        ends = watch(texts)
        for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
            ended_B[row] = end is not None or (len(text) and text[-1] in request.processors.eos_ids_E)
            new_BT[row, len(text) if end is None else end :] = request.pad_id
        if until == max_new_tokens or ended_B.all():
            return new_BT


def _up_to(tokens_T: np.ndarray, eos_ids_E: Any) -> np.ndarray:
    """Returns the tokens up to the first that ends a text, itself included, or all."""
    ends = np.flatnonzero(np.isin(tokens_T, eos_ids_E))
    return tokens_T[: ends[0] + 1] if len(ends) else tokens_T


def _to_rows(prompts: Sequence[Sequence[int]], pad_id: int, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns prompts as int32 [B, P], B and P powers of two (or P max_length), and their lengths [B]."""
    lengths_B = np.ones(_bucket(len(prompts), smallest=1), np.int32)
    width = min(_bucket(max(map(len, prompts))), max_length)
    prompts_BP = np.full((len(lengths_B), width), pad_id, np.int32)
    for row, prompt in enumerate(prompts):
        lengths_B[row] = len(prompt)
        prompts_BP[row, : len(prompt)] = prompt
    return prompts_BP, lengths_B


class Request(NamedTuple):
    """What stays the same while texts grow."""

    prompts_BP: np.ndarray
    lengths_B: np.ndarray
    encoded: tuple[np.ndarray, np.ndarray] | None  # rows and their lengths that the encoder reads
    is_padding_B: np.ndarray  # rows of which nothing is wanted, or nothing more
    key: jax.Array
    pad_id: Number
    processors: Processors


class State(NamedTuple):
    """Texts after `step` new tokens."""

    step: jax.Array
    token_B: jax.Array
    tokens_BS: jax.Array
    done_B: jax.Array
    cache: Caches  # for each layer


def _prefill(
    params: Any, request: Request, model: Transformer, buffer_length: int
) -> tuple[jax.Array, jax.Array, Any]:
    """Returns prompts in their buffer [B, S], the logits that follow them [B, V], and their cache."""
    prompts_BP = jnp.asarray(request.prompts_BP)
    batch_size, prompt_length = prompts_BP.shape
    tokens_BS = jnp.full((batch_size, buffer_length), request.pad_id).at[:, :prompt_length].set(prompts_BP)
    lengths_B1 = jnp.asarray(request.lengths_B)[:, None]
    cache = init_cache(model.config, batch_size, buffer_length)
    inputs: dict[str, Any] = {}
    if request.encoded is not None:
        sources_BS, sizes_B = map(jnp.asarray, request.encoded)
        is_real_BS = jnp.arange(sources_BS.shape[1]) < sizes_B[:, None]
        inputs = {'encoder_tokens_BS': sources_BS, 'encoder_segments_BS': is_real_BS.astype(jnp.int32)}
    if model.config.structure == 'prefix_decoder':
        inputs['prefix_BL'] = jnp.arange(prompt_length) < lengths_B1
    logits_B1V, cache = model.apply(
        {'params': params}, prompts_BP, cache=cache, logits_at_BM=lengths_B1 - 1, **inputs
    )
    return tokens_BS, logits_B1V[:, 0], unstack(cache)


def _make_advance(layers: Any, model: Transformer) -> beam_search.Advance:
    """Returns the function that appends one token a row: (tokens_B, positions_B, caches) → (logits, caches).

    Layers are compiled one by one: a loop over them would copy each one's kernels and cache out of the stack.
    """

    def advance(tokens_B, positions_B, cache):
        params = separate(layers) if 'blocks' in layers else layers
        logits_B1V, cache = model.apply(
            {'params': params}, tokens_B[:, None], positions_BL=positions_B[:, None], cache=cache
        )
        return logits_B1V[:, 0], cache

    return advance


def _holds() -> bool:
    """Are parameters prepared for the loop over tokens? Elsewhere slices of the stack are read."""
    return jax.default_backend() == 'cpu'


@functools.partial(jax.jit, static_argnames='dtype')
def _hold(params: Any, *, dtype: str) -> Any:
    """Returns a decoder's parameters, layer by layer, kernels and vectors of tokens held in `dtype`."""

    def hold_one(path: tuple, leaf: jax.Array) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if name == 'token_embedding/embedding':
            return hold(leaf.astype(dtype), transposed=True)
        if name.endswith('kernel'):
            return hold(leaf.astype(dtype), inputs=2 if name.endswith('attention/out/kernel') else 1)
        return leaf

    decoder = {name: tree for name, tree in params.items() if not name.startswith('encoder')}
    return jax.tree_util.tree_map_with_path(hold_one, separate(decoder))


def _emit(request: Request, step: Any, logits_BV: jax.Array, tokens_BS: jax.Array, done_B: jax.Array):
    """Chooses the tokens that follow from the logits; returns step, token_B, tokens_BS and done_B anew."""
    rows_B = jnp.arange(len(tokens_BS))
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(request.key, rows_B)
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
    processors, lengths_B = request.processors, request.lengths_B + step
    logits_BV = mask_vocabulary(logits_BV, processors.vocab_size)
    logits_BV = process(logits_BV, tokens_BS, lengths_B, step, processors)
    token_B = jnp.where(done_B, request.pad_id, sample(logits_BV, keys_B, processors))
    tokens_BS = tokens_BS.at[rows_B, lengths_B].set(token_B, mode='drop')
    tokens_BS = constrain(tokens_BS, None, None)  # whole on every process
    return step + 1, token_B, tokens_BS, done_B | jnp.isin(token_B, processors.eos_ids_E)


@functools.partial(jax.jit, static_argnames=('model', 'buffer_length'))
def _begin(params: Any, request: Request, *, model: Transformer, buffer_length: int) -> State:
    """Reads the prompts and adds a token to each."""
    tokens_BS, logits_BV, cache = _prefill(params, request, model, buffer_length)
    done_B = jnp.asarray(request.is_padding_B)
    return State(*_emit(request, jnp.int32(0), logits_BV, tokens_BS, done_B), cache)


@functools.partial(jax.jit, static_argnames=('model',), donate_argnums=2)
def _extend(layers: Any, request: Request, state: State, until: Number, *, model: Transformer) -> State:
    """Adds tokens until there are `until`, or every row is done."""
    advance = _make_advance(layers, model)

    def unfinished(state: State) -> jax.Array:
        return (state.step < until) & ~jnp.all(state.done_B)

    def body(state: State) -> State:
        step, token_B, tokens_BS, done_B, cache = state
        positions_B = jnp.asarray(request.lengths_B) + step - 1
        logits_BV, cache = advance(token_B, positions_B, cache)
        return State(*_emit(request, step, logits_BV, tokens_BS, done_B), cache)

    state = state._replace(done_B=state.done_B | request.is_padding_B)
    return jax.lax.while_loop(unfinished, body, state)


@functools.partial(jax.jit, static_argnames=('model', 'buffer_length', 'num_beams'))
def _search(
    params: Any,
    layers: Any,
    request: Request,
    ranking: beam_search.Ranking,
    *,
    model: Transformer,
    buffer_length: int,
    num_beams: int,
) -> jax.Array:
    """Returns each prompt with its continuations, best first [B, M, S]."""
    tokens_BS, logits_BV, cache = _prefill(params, request, model, buffer_length)
    tokens_BMS = beam_search.search(
        _make_advance(layers, model),
        logits_BV,
        cache,
        tokens_BS,
        jnp.asarray(request.lengths_B),
        ~jnp.asarray(request.is_padding_B),
        num_beams=num_beams,
        ranking=ranking,
        processors=request.processors,
    )
    return constrain(tokens_BMS, None, None, None)


def _bucket(size: int, smallest: int = SMALLEST_BUFFER) -> int:
    """Rounds up to a power of two."""
    return max(smallest, 1 << (size - 1).bit_length())


def _check(model: Transformer, prompts: Sequence[Sequence[int]], decoding: Decoding) -> None:
    """Raises UserError for prompts that cannot be continued as asked."""
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError('A prompt is empty; give at least one prompt, of at least one token (bos will do).')
    if model.config.structure == 'encoder':
        raise UserError('An encoder writes no text; give it one with [MASK] in it, or choose another model.')
    longest, max_length = max(map(len, prompts)), model.config.max_length
    if model.config.encoder_layers:
        if longest > max_length:
            raise UserError(
                f'A prompt of {longest} tokens exceeds model.max_length={max_length}; shorten it.'
            )
        longest = 1
    if longest + decoding.max_new_tokens > max_length:
        raise UserError(
            f'A prompt of {longest} tokens and max_new_tokens={decoding.max_new_tokens} exceed '
            f'model.max_length={max_length}; shorten one of them.'
        )
    if decoding.min_new_tokens > decoding.max_new_tokens:
        raise UserError(
            f'min_new_tokens={decoding.min_new_tokens} exceeds max_new_tokens={decoding.max_new_tokens}; '
            'lower the one or raise the other.'
        )
