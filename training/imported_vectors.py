"""Word vectors from elsewhere as a run of word embeddings, which every command opens.

V vocabulary · D width
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from configs import base
from data.word_tokenizer import WordTokenizer, serialise
from data.word_vectors import WordVectors
from model import word_embeddings
from parallel.mesh import make_mesh
from training.run import Run, build_model


def as_run(vectors: WordVectors) -> Run:
    """Returns a run of word embeddings with these vectors; how often its words occur is not known."""
    content = serialise(
        [(word, 0) for word in vectors.words],
        lowercase=all(word == word.lower() for word in vectors.words),
        phrases=[],
    )
    tokenizer = WordTokenizer(content)
    config = base.get_config()
    config.objective = 'skip_gram'
    config.model.family = word_embeddings.FAMILY
    config.model.embed_dim = vectors.vectors.shape[1]
    config.tokenizer.kind = 'words'
    mesh = make_mesh({'data': -1, 'fsdp': 1, 'tensor': 1, 'context': 1})
    model = build_model(config, tokenizer, mesh)
    table_VD = np.zeros((model.config.vocab_size, config.model.embed_dim), np.float32)
    table_VD[list(tokenizer.ids.values())] = vectors.vectors
    params = {'center_embedding': table_VD, 'context_embedding': np.zeros_like(table_VD)}
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    return Run(Path(), 0, config, {}, tokenizer, model, params, mesh)
