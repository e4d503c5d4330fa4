"""What stands behind the masks of a text, by a masked language model.

L length · K candidates
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import UserError
from data.tokenizer import Tokenizer
from model.logits import mask_vocabulary
from model.transformer import Transformer
from training.prompts import encode_prompt


@dataclasses.dataclass(frozen=True)
class Filled:
    """A text with the likeliest token at each mask, and for each mask [(token's text, probability), …]."""

    text: str
    candidates: list[list[tuple[str, float]]]


def fill(model: Transformer, params: Any, tokenizer: Tokenizer, text: str, *, candidates: int = 5) -> Filled:
    """Guesses each mask of a text on its own, from all that is not masked.

    Raises UserError if the model is no masked language model, or the text has no mask or is too long.
    """
    if model.config.structure != 'encoder' or model.config.head == 'none' or tokenizer.mask_id is None:
        raise UserError(
            'only a masked language model, such as BERT, fills masks; this one has model.structure='
            f'{model.config.structure!r}, model.head={model.config.head!r} and a tokenizer '
            f'{"without" if tokenizer.mask_id is None else "with"} a mask.'
        )
    ids = encode_prompt(model, tokenizer, text)
    masks = np.flatnonzero(ids == tokenizer.mask_id)
    if not len(masks):
        raise UserError(f'no mask in {text!r}; write [MASK] or <mask> where a token is to be guessed.')
    if len(ids) > model.config.max_length:
        raise UserError(
            f'{len(ids)} tokens exceed model.max_length={model.config.max_length}; shorten the text.'
        )
    size = min(1 << (len(ids) - 1).bit_length(), model.config.max_length)  # few shapes are ever compiled
    tokens = np.full((1, size), tokenizer.pad_id, np.int32)
    tokens[0, : len(ids)] = ids
    real = (np.arange(size) < len(ids)).astype(np.int32)[None]
    probabilities_LK, tokens_LK = _rank(
        params,
        tokens,
        real,
        model=model,
        vocab_size=tokenizer.vocab_size,
        candidates=min(candidates, tokenizer.vocab_size),
    )
    ranked = [
        [
            (_show(tokenizer, token), float(p))
            for token, p in zip(tokens_LK[at], probabilities_LK[at], strict=True)
        ]
        for at in masks
    ]
    ids[masks] = tokens_LK[masks, 0]
    return Filled(tokenizer.decode(ids), ranked)


@functools.partial(jax.jit, static_argnames=('model', 'vocab_size', 'candidates'))
def _rank(
    params: Any,
    tokens_1L: jax.Array,
    real_1L: jax.Array,
    *,
    model: Transformer,
    vocab_size: int,
    candidates: int,
) -> tuple[jax.Array, jax.Array]:
    """Returns the probabilities [L, K] and ids [L, K] of the likeliest tokens at each position."""
    logits_LV = model.apply({'params': params}, tokens_1L, real_1L)[0]
    probabilities_LV = jax.nn.softmax(mask_vocabulary(logits_LV, jnp.int32(vocab_size)), axis=-1)
    return jax.lax.top_k(probabilities_LV, candidates)


def _show(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as text, quoted if it is white space, or as its number if it stands for no text."""
    text = tokenizer.decode([int(token)])
    if not text or '\ufffd' in text:
        return f'#{token}'
    return text if text.strip() else repr(text)
