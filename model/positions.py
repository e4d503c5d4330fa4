"""Positions: a learned table, or rotations of queries and keys.

B batch · L length · N heads · H head dim
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from model.families import ModelConfig

Rotation = tuple[jax.Array, jax.Array]


def rotation(positions_BL: jax.Array, config: ModelConfig) -> Rotation:
    """Returns (cos, sin), float32 [B, L, 1, H/2], of position · frequency."""
    angles = positions_BL[:, :, None, None].astype(jnp.float32) * frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def frequencies(config: ModelConfig) -> np.ndarray:
    """Returns radians a position, float32 [H/2]: θ^(−2i/H) (Su et al. 2021, eq. 15), stretched by the config.

    'linear' divides every frequency by the factor (Chen et al. 2023). 'llama3' divides those whose
    wavelength exceeds original_length / low_factor, keeps those below original_length / high_factor, and
    goes from one to the other linearly in original_length / wavelength (the code of Llama 3.1).
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    original = (1.0 / config.rope_theta**exponents).astype(np.float32)
    if config.rope_scaling == 'none':
        return original
    stretched = original / config.rope_factor
    if config.rope_scaling == 'linear':
        return stretched.astype(np.float32)
    turns = config.rope_original_length * original / (2 * math.pi)
    keep = (turns - config.rope_low_factor) / (config.rope_high_factor - config.rope_low_factor)
    keep = np.clip(keep, 0, 1)
    return (keep * original + (1 - keep) * stretched).astype(np.float32)


def rotate(x_BLNH: jax.Array, by: Rotation) -> jax.Array:
    """Turns each pair (xᵢ, xᵢ₊ₕ), h = H/2, by its angle; in float32, returned in x's dtype.

    Pairing halves rather than neighbours is the layout of GPT-NeoX and of LLaMA's weights at
    Hugging Face; Meta's own files pair neighbours, which permutes the columns of the kernels.
    """
    cos, sin = by
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLNH.dtype)
