"""Word embeddings: each word has a vector as the centre of a window, and one as its context.

V vocabulary · D width
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from configs.errors import UserError
from model import families
from model.layers import parameter
from model.lookup import lookup
from parallel import rules

FAMILY = 'word_embeddings'


@dataclasses.dataclass(frozen=True)
class WordEmbeddingsConfig:
    """Every property of a pair of tables, resolved. The keys are explained in configs/base.py."""

    vocab_size: int
    embed_dim: int
    use_bias: bool
    compute_dtype: str
    family: str = FAMILY
    structure: str = 'words'


def resolve(config: Any, *, vocab_size: int, platform: str | None = None) -> WordEmbeddingsConfig:
    """Resolves an experiment's tables, as `families.resolve` does a Transformer's."""
    keys = config.model
    if keys.embed_dim < 1:
        raise UserError(f'model.embed_dim={keys.embed_dim} must be at least 1.')
    if keys.vocab_size is not None and keys.vocab_size < vocab_size:
        raise UserError(f'model.vocab_size={keys.vocab_size} is less than the tokenizer has: {vocab_size}.')
    return WordEmbeddingsConfig(
        vocab_size=keys.vocab_size or families.round_up(vocab_size, families.VOCAB_MULTIPLE),
        embed_dim=keys.embed_dim,
        use_bias=bool(keys.use_bias),
        compute_dtype=families.compute_dtype(config.compute_dtype, platform or jax.default_backend()),
    )


def check_layout(config: WordEmbeddingsConfig, mesh_shape: Any) -> None:
    """Raises UserError if the tables cannot be cut over a mesh ({mesh axis: devices})."""
    sizes = {
        'model.embed_dim': ('embed', config.embed_dim),
        'model.vocab_size': ('vocab', config.vocab_size),
    }
    rules.check_divides(sizes, mesh_shape)


class WordEmbeddings(nn.Module):
    """Two tables, float32 [V, D], cut over the vocabulary like a Transformer's; with biases [V] for GloVe.

    Both begin uniform in ±1/(2 D), as in word2vec's and GloVe's own programs.
    """

    config: WordEmbeddingsConfig

    def setup(self) -> None:
        """Declares the tables."""
        config = self.config
        shape = (config.vocab_size, config.embed_dim)

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -0.5, 0.5) / config.embed_dim

        for name in ('center', 'context'):
            setattr(self, name, parameter(self, f'{name}_embedding', uniform, shape, ('vocab', 'embed')))
            if config.use_bias:
                bias = parameter(self, f'{name}_bias', nn.initializers.zeros, shape[:1], ('vocab',))
                setattr(self, f'{name}_bias', bias)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Returns the vectors of words as centres, float32 [*ids.shape, D]."""
        return lookup(self.center, ids, 'vocab')

    def contexts(self, ids: jax.Array) -> jax.Array:
        """Returns the vectors of words as contexts, float32 [*ids.shape, D]."""
        return lookup(self.context, ids, 'vocab')

    def biases(self, centers: jax.Array, contexts: jax.Array) -> jax.Array:
        """Returns b_i + b̃_j of pairs of words, float32 of their shape."""
        return self.center_bias[centers] + self.context_bias[contexts]


def word_vectors(params: Any) -> jax.Array:
    """Returns the vectors [V, D] that stand for words: the centres; with biases (GloVe) both tables' sum.

    Source: Pennington et al. 2014, section 4.2.
    """
    if 'center_bias' in params:
        return params['center_embedding'] + params['context_embedding']
    return params['center_embedding']
