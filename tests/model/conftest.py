"""Tiny models: the default experiment, shrunk."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs import base
from model import families
from model.transformer import Transformer


@pytest.fixture(scope='session')
def make_config():
    def make(family='gpt2', vocab_size=40, sequence_length=24, compute_dtype='float32', **model_keys):
        config = base.get_config()
        config.sequence_length = sequence_length
        config.compute_dtype = compute_dtype
        config.model.update({'family': family, 'num_layers': 2, 'embed_dim': 16, 'num_heads': 4})
        config.model.update({'vocab_size': vocab_size, **model_keys})
        return families.resolve(config, vocab_size=vocab_size)

    return make


@pytest.fixture(scope='session')
def make_model(make_config):
    """Returns a model and random parameters, in which biases and scales matter too."""

    def make(family='gpt2', **keys):
        model = Transformer(make_config(family, **keys))
        boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        leaves, tree = jax.tree.flatten(nn.unbox(boxed)['params'])
        noise = [
            0.3 * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), leaf.shape)
            for i, leaf in enumerate(leaves)
        ]
        return model, jax.tree.unflatten(tree, noise)

    return make
