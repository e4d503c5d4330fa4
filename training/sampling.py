"""Text in, text out: prompts are encoded, continued by the model and decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data.tokenizer import Tokenizer
from model.decoding import Decoding
from model.generation import generate
from model.transformer import Transformer
from training.streaming import TextWatch


def complete(
    model: Transformer,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[np.ndarray],
    decoding: Decoding,
    *,
    key: jax.Array,
    stop: Sequence[str] = (),
    write: Callable[[str], object] | None = None,
    with_prompt: bool = True,
) -> list[str]:
    """Returns each prompt (ids from `encode_prompt`) and its continuation as one text.

    Args:
      decoding: with beams, each prompt gives num_return_sequences texts in a row.
      stop: a text ends with the token that completes one of these; not with beams.
      write: takes the first text piece by piece as it grows; not with beams.
      with_prompt: False leaves the prompt out of the texts.
    """
    shown = prompts if with_prompt else [prompt[:0] for prompt in prompts]
    watch = TextWatch(tokenizer.decode, shown, stop, write) if stop or write else None
    new_tokens = generate(
        model,
        params,
        [prompt.tolist() for prompt in prompts],
        decoding,
        key=key,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        vocab_size=tokenizer.vocab_size,
        watch=watch,
        watch_every=1 if write else 16,
    )
    shown = [prompt for prompt in shown for _ in range(decoding.num_return_sequences)]
    texts = [
        tokenizer.decode(np.concatenate([prompt, new])) for prompt, new in zip(shown, new_tokens, strict=True)
    ]
    if watch is not None:
        watch.finish(texts[0])
    return texts


def encode_prompt(tokenizer: Tokenizer, text: str, *, chat: bool = False) -> np.ndarray:
    """Returns int32 ids of a text to continue; or with `chat`, of a question to answer.

    An empty prompt is the begin symbol. Raises UserError if the tokenizer has no chat template.
    """
    if chat:
        return tokenizer.encode(tokenizer.apply_chat([{'role': 'user', 'content': text}]))
    prompt = tokenizer.encode_prompt(text)
    return prompt if len(prompt) else np.array([tokenizer.bos_id], np.int32)


def sample(model: Transformer, params: Any, tokenizer: Tokenizer, config: ConfigDict, step: int) -> list[str]:
    """Returns continuations of `config.sample_prompts`; the same for the same parameters, seed and step."""
    room = model.config.max_length - 1
    prompts = [encode_prompt(tokenizer, text)[:room] for text in config.sample_prompts]
    longest = max(len(prompt) for prompt in prompts)
    return complete(
        model,
        params,
        tokenizer,
        prompts,
        Decoding(
            max_new_tokens=max(1, min(config.sample_tokens, model.config.max_length - longest)),
            temperature=0.8,
            top_k=50,
        ),
        key=jax.random.fold_in(jax.random.key(config.seed), step),
    )
