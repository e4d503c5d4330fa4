"""Text in, text out: prompts are encoded, continued by the model and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data.tokenizer import Tokenizer
from model.generation import generate
from model.transformer import Transformer


def complete(
    model: Transformer,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    key: jax.Array,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[str]:
    """Returns each prompt (ids from `Tokenizer.encode_prompt`) and its continuation as one text."""
    new_tokens = generate(
        model,
        params,
        [prompt.tolist() for prompt in prompts],
        max_new_tokens=max_new_tokens,
        key=key,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    return [
        tokenizer.decode(np.concatenate([prompt, new]))
        for prompt, new in zip(prompts, new_tokens, strict=True)
    ]


def sample(model: Transformer, params: Any, tokenizer: Tokenizer, config: ConfigDict, step: int) -> list[str]:
    """Returns continuations of `config.sample_prompts`; the same for the same parameters, seed and step."""
    room = model.config.max_length - 1
    prompts = [tokenizer.encode_prompt(text)[:room] for text in config.sample_prompts]
    longest = max(len(prompt) for prompt in prompts)
    return complete(
        model,
        params,
        tokenizer,
        prompts,
        max_new_tokens=max(1, min(config.sample_tokens, model.config.max_length - longest)),
        key=jax.random.fold_in(jax.random.key(config.seed), step),
        temperature=0.8,
        top_k=50,
    )
