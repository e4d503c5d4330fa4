"""Text in, text out: prompts are encoded, continued or answered by the model, and decoded."""

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
from model.word_embeddings import WordEmbeddings
from training import mask_filling, vectors, word_similarity
from training.prompts import encode_prompt
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
    """Returns each prompt (ids from `prompts.encode_prompt`) with its continuation; or answers alone.

    Args:
      decoding: with beams, each prompt gives num_return_sequences texts in a row.
      stop: a text ends with the token that completes one of these; not with beams.
      write: takes the first text piece by piece as it grows; not with beams.
      with_prompt: False leaves the prompt out of the texts, as an encoder-decoder does anyway.
    """
    with_prompt = with_prompt and not model.config.encoder_layers
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


def sample(
    model: Transformer | WordEmbeddings, params: Any, tokenizer: Tokenizer, config: ConfigDict, step: int
) -> list[str]:
    """Returns continuations of `config.sample_prompts`; the same for the same parameters, seed and step.

    An encoder's are the prompts with their masks filled, those of word embeddings each word's neighbours.
    """
    if isinstance(model, WordEmbeddings):
        return _neighbours(params, tokenizer, config.sample_prompts)
    if model.config.structure == 'encoder':
        return [
            mask_filling.fill(model, params, tokenizer, text, candidates=1).text
            for text in config.sample_prompts
        ]
    room = model.config.max_length - 1
    prompts = [encode_prompt(model, tokenizer, text)[:room] for text in config.sample_prompts]
    longest = 1 if model.config.encoder_layers else max(map(len, prompts))
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


def _neighbours(params: Any, tokenizer: Tokenizer, words: Sequence[str]) -> list[str]:
    """Returns 'word: neighbour 0.71, …' for each word; of one that the vocabulary lacks, that it does."""
    known = vectors.of_model(params, tokenizer)
    texts = []
    for word in words:
        found = word_similarity.nearest(known, word, 8) if word in known.ids else []
        near = ', '.join(f'{neighbour} {score:.2f}' for neighbour, score in found)
        texts.append(f'{word}: {near or "not in the vocabulary"}')
    return texts
