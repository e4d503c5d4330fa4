"""Sizes and costs of a model: what MFU and plans are computed from."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from model import lora
from model.families import ModelConfig
from model.transformer import Transformer


def count_parameters(config: ModelConfig) -> int:
    """Returns the number of parameters, tables of embeddings included."""
    return sum(_sizes(config).values())


def matmul_parameters(config: ModelConfig) -> int:
    """Returns the number of parameters that tokens are multiplied by.

    These are the kernels and their adapters, and the table of a tied embedding, which is looked up on
    the way in but multiplied by on the way out.
    """
    return sum(_matmul_sizes(config).values())


def train_flops_per_row(
    config: ModelConfig,
    length: int,
    *,
    encoder_length: int = 0,
    predicted: int | None = None,
    learnt: Callable[[str], bool] = lambda name: True,
) -> int:
    """Returns the floating-point operations of one sequence's forward and backward passes.

    6 per matmul parameter and token, 4 if it is frozen and has no gradient, and 12 · heads · head_dim ·
    length² for each layer's attention. As in PaLM, appendix B, attention counts the whole square of
    positions, of which a causal model needs half; rematerialisation, norms and activations do not count.

    Args:
      length: tokens that the decoder, or the only stack of blocks, reads.
      encoder_length: tokens that a separate encoder reads.
      predicted: tokens whose logits are computed; None: `length`.
      learnt: of a parameter's name, whether it is learnt.
    """
    predicted = length if predicted is None else predicted
    products = 0
    for name, size in _matmul_sizes(config).items():
        of_encoder = name.startswith('encoder_') or name.endswith(
            ('cross_attention/key/kernel', 'cross_attention/value/kernel')
        )
        of_logits = name.startswith(('token_embedding', 'unembed', 'head_dense'))
        of_row = name.startswith(('pooler', 'classifier'))
        tokens = encoder_length if of_encoder else predicted if of_logits else 1 if of_row else length
        products += (6 if learnt(name) else 4) * size * tokens
    scores = (
        config.num_layers * length * (length + encoder_length) + config.encoder_layers * encoder_length**2
    )
    return products + 12 * config.num_heads * config.head_dim * scores


def _matmul_sizes(config: ModelConfig) -> dict[str, int]:
    """Returns {name: elements} of the parameters that tokens are multiplied by."""
    tied = {'token_embedding/embedding'} if config.tie_embeddings and config.head != 'none' else set()
    kinds = (lora.KERNEL, lora.A, lora.B)
    return {name: size for name, size in _sizes(config).items() if name.endswith(kinds) or name in tied}


def _sizes(config: ModelConfig) -> dict[str, int]:
    """Returns {name: elements} of all parameters, without making them."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    variables = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)
    leaves = jax.tree_util.tree_leaves_with_path(variables['params'])
    # A leaf's path ends in the attribute of its box of logical axes, which is not part of its name.
    return {jax.tree_util.keystr(path[:-1], simple=True, separator='/'): leaf.size for path, leaf in leaves}
