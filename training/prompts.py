"""A user's text as the ids that a model reads."""

from __future__ import annotations

import numpy as np

from data.tokenizer import Tokenizer
from model.transformer import Transformer


def encode_prompt(model: Transformer, tokenizer: Tokenizer, text: str, *, chat: bool = False) -> np.ndarray:
    """Returns int32 ids of a text to continue, framed as the model's structure learnt to see it.

    A decoder's empty prompt is the begin symbol. With `chat`, the text is a question to answer; raises
    UserError if the tokenizer has no chat template.
    """
    if chat:
        return tokenizer.encode(tokenizer.apply_chat([{'role': 'user', 'content': text}]))
    if model.config.structure in ('encoder', 'encoder_decoder'):
        begin = [tokenizer.bos_id] if model.config.structure == 'encoder' else []
        return np.array([*begin, *tokenizer.encode_marked(text), tokenizer.eos_id], np.int32)
    prompt = tokenizer.encode_prompt(text)
    return prompt if len(prompt) else np.array([tokenizer.bos_id], np.int32)
