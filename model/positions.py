"""Positions: a learned table, or rotations of queries and keys.

B batch · L length · N heads · H head dim
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Rotation = tuple[jax.Array, jax.Array]


def rotation(positions_BL: jax.Array, *, head_dim: int, theta: float) -> Rotation:
    """Returns (cos, sin), float32 [B, L, 1, H/2], of position · θ^(−2i/H) (Su et al. 2021, eq. 15)."""
    wavelengths = theta ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions_BL[:, :, None, None].astype(jnp.float32) / wavelengths
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BLNH: jax.Array, by: Rotation) -> jax.Array:
    """Turns each pair (xᵢ, xᵢ₊ₕ), h = H/2, by its angle; in float32, returned in x's dtype.

    Pairing halves rather than neighbours is the layout of GPT-NeoX and of LLaMA's weights at
    Hugging Face; Meta's own files pair neighbours, which permutes the columns of the kernels.
    """
    cos, sin = by
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLNH.dtype)
