"""Sizes and costs of a model: what MFU and plans are computed from."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from model.families import ModelConfig
from model.transformer import Transformer


def count_parameters(config: ModelConfig) -> int:
    """Returns the number of parameters, tables of embeddings included."""
    return sum(_sizes(config).values())


def matmul_parameters(config: ModelConfig) -> int:
    """Returns the number of parameters that every token is multiplied by.

    These are the kernels, and the table of a tied embedding, which is looked up on the way in but
    multiplied by on the way out.
    """
    sizes = _sizes(config)
    kernels = sum(size for name, size in sizes.items() if name.endswith('kernel'))
    return kernels + (sizes['token_embedding/embedding'] if config.tie_embeddings else 0)


def train_flops_per_token(config: ModelConfig, length: int) -> int:
    """Returns the floating-point operations of one token's forward and backward passes.

    6 per matmul parameter, and 12 · layers · heads · head_dim · length for attention. As in
    PaLM, appendix B, attention counts the whole square of positions, of which a causal model
    needs half; rematerialisation, norms and activations do not count.
    """
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * length
    return 6 * matmul_parameters(config) + attention


def _sizes(config: ModelConfig) -> dict[str, int]:
    """Returns {name: elements} of all parameters, without making them."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    variables = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)
    leaves = jax.tree_util.tree_leaves_with_path(variables['params'])
    # A leaf's path ends in the attribute of its box of logical axes, which is not part of its name.
    return {jax.tree_util.keystr(path[:-1], simple=True, separator='/'): leaf.size for path, leaf in leaves}
