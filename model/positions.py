"""Positions: sinusoids, rotations of queries and keys, or biases of their scores by distance.

B batch · L length · S key length · D embed · N heads · H head dim
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


def sinusoids(positions_BL: jax.Array, width: int) -> jax.Array:
    """Returns float32 [B, L, D]: sines of position / 10000^(2i/D), then cosines (Vaswani et al. 2017, 3.5).

    The paper has sines and cosines take turns; its code, and all published weights, put the halves one
    after the other, which permutes the width.
    """
    exponents = np.arange(0, width, 2, dtype=np.float32) / width
    angles = positions_BL[:, :, None].astype(jnp.float32) * (1 / 10000.0**exponents)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def relative_buckets(
    queries_BL: jax.Array, keys_S: jax.Array, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """Returns int32 [B, L, S]: the bucket of each distance from a query's position to a key's.

    Half of a direction's buckets hold one distance each, the others ever wider ranges up to max_distance.
    Without `bidirectional`, keys after the query share the bucket of distance 0. Source: Raffel et al. 2020,
    section 2.1, and the code of T5.
    """
    distances_BLS = keys_S - queries_BL[:, :, None]
    of_one_direction = num_buckets // 2 if bidirectional else num_buckets
    # By a table, since a logarithm's last bit, which differs between machines, decides at the borders.
    table = jnp.asarray(_buckets_by_distance(of_one_direction, max_distance))
    before_BLS = table[jnp.clip(-distances_BLS, 0, max_distance)]
    if not bidirectional:
        return before_BLS
    after_BLS = of_one_direction + table[jnp.clip(distances_BLS, 0, max_distance)]
    return jnp.where(distances_BLS > 0, after_BLS, before_BLS)


def _buckets_by_distance(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns int32 [max_distance + 1]: the bucket of every distance up to the last."""
    exact = num_buckets // 2
    distances = np.arange(max_distance + 1, dtype=np.float32)
    octaves = np.log(np.maximum(distances, exact) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    large = np.minimum(exact + (octaves * (num_buckets - exact)).astype(np.int32), num_buckets - 1)
    return np.where(distances < exact, distances.astype(np.int32), large).astype(np.int32)
