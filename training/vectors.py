"""The word vectors of a model, and embeddings of a Transformer that begin as such vectors.

V vocabulary · D width
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.errors import UserError
from data import word_vectors
from data.tokenizer import Tokenizer
from data.word_tokenizer import WordTokenizer
from data.word_vectors import WordVectors
from model import word_embeddings

SPACE_SIGN = '\u2581'  # stands in the name of a token for a space, as in SentencePiece


def of_model(params: Any, tokenizer: Tokenizer) -> WordVectors:
    """Returns the vectors of word embeddings, or the rows of a Transformer's table of tokens.

    Special tokens are left out, and of several tokens with one text all but the first.
    """
    if 'token_embedding' in params:
        table_VD = params['token_embedding']['embedding']
    else:
        table_VD = word_embeddings.word_vectors(params)
    table_VD = np.asarray(jax.device_get(table_VD), np.float32)
    names = token_names(tokenizer)
    return WordVectors(list(names), table_VD[list(names.values())])


def token_names(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns {text: id} of the tokens that stand for text, a space written as SPACE_SIGN."""
    if isinstance(tokenizer, WordTokenizer):
        return tokenizer.ids
    names: dict[str, int] = {}
    for token, size in enumerate(tokenizer.token_bytes().tolist()):
        text = tokenizer.decode([token]).replace(' ', SPACE_SIGN) if size else ''
        if text and not any(character.isspace() or character == '\ufffd' for character in text):
            names.setdefault(text, token)
    return names


def plant(params: Any, path: str, tokenizer: Tokenizer) -> Any:
    """Returns parameters in which the embeddings of known words are the vectors in a file.

    A token's word is its text without the space before it, as it is or in lower case. The vectors are
    scaled to the root mean square of what they replace, so that the model starts as balanced as before.

    Raises UserError for a model without a table of tokens, another width, or no word in common.
    """
    vectors = word_vectors.read(Path(path))
    if 'token_embedding' not in params:
        raise UserError(
            f'model.embedding_vectors={path!r} is for the tokens of a Transformer; leave it empty.'
        )
    table_VD = params['token_embedding']['embedding']
    width = table_VD.shape[1]
    if vectors.vectors.shape[1] != width:
        raise UserError(
            f'{path} has vectors of {vectors.vectors.shape[1]} numbers, and model.embed_dim={width}; make '
            'them equal.'
        )
    found: dict[int, int] = {}
    for text, token in token_names(tokenizer).items():
        word = text.removeprefix(SPACE_SIGN)
        number = vectors.ids.get(word, vectors.ids.get(word.lower()))
        if number is not None:
            found[token] = number
    if not found:
        raise UserError(f'no token of the tokenizer is a word of {path}; give vectors of its language.')
    planted = vectors.vectors[list(found.values())]
    scale = np.sqrt(np.square(planted).mean())

    def replace(table_VD: jax.Array) -> jax.Array:
        ids = np.array(list(found), np.int32)
        size = jax.numpy.sqrt(jax.numpy.square(table_VD[ids]).mean())
        return table_VD.at[ids].set(planted * (size / scale))

    table_VD = jax.jit(replace, out_shardings=table_VD.sharding)(table_VD)
    return params | {'token_embedding': {'embedding': table_VD}}
