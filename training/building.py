"""The model of an experiment, and its parameters as shapes and shardings."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data.tokenizer import Tokenizer
from model import families, word_embeddings
from model.transformer import Transformer
from model.word_embeddings import WordEmbeddings
from parallel import rules
from parallel.mesh import make_mesh
from training.state import boxed_params


def build_model(config: ConfigDict, tokenizer: Tokenizer, mesh: Mesh) -> Transformer | WordEmbeddings:
    """Returns the model of `config` over the tokenizer's vocabulary; UserError if `mesh` cannot cut it."""
    if config.model.family == word_embeddings.FAMILY:
        tables = word_embeddings.resolve(config, vocab_size=tokenizer.vocab_size)
        word_embeddings.check_layout(tables, mesh.shape)
        return WordEmbeddings(tables)
    model_config = families.resolve(config, vocab_size=tokenizer.vocab_size)
    families.check_layout(model_config, mesh.shape)
    return Transformer(model_config)


def whole_mesh(config: ConfigDict) -> Mesh:
    """Returns a mesh of all devices, over which a model is cut for use where its width divides."""
    cut = config.model.embed_dim % jax.device_count() == 0
    return make_mesh({'data': 1 if cut else -1, 'fsdp': -1 if cut else 1, 'tensor': 1, 'context': 1})


def abstract_params(model: nn.Module, mesh: Mesh) -> Any:
    """Returns the shapes, dtypes and shardings of a model's parameters on a mesh."""
    boxed = boxed_params(model)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        rules.shardings(boxed, mesh),
    )
