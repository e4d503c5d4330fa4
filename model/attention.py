"""Attention: the formula, its back ends, the key/value cache, and the projections around them.

B batch · L query length · S key length · D embed · N query heads · K key/value heads · H head dim · G = N/K
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from model import kernels
from model.families import ModelConfig
from model.layers import Linear, Norm, residual_stddev
from model.masked_attention import attend_masked
from model.positions import Rotation, rotate
from parallel.rules import constrain

Cache = dict[str, jax.Array]  # 'key', 'value': [B, S, K, H] of one layer, [layers, B, S, K, H] of a model


def attend(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    implementation: str,
    window: int = 0,
) -> jax.Array:
    """Causal self-attention within segments, softmax(q kᵀ / √H) v, in q's dtype.

    Args:
      q_BLNH, k_BLKH, v_BLKH: N is a multiple of K; each key/value head serves N/K query heads.
      segments_BL: int32; a position attends only to its own segment, so that padding
        (segment 0) attends to padding and nothing else does. None: all one segment.
      implementation: 'xla', 'cudnn' or 'splash'; shapes that a kernel cannot take go to 'xla'.
      window: a position sees this many, its own included (Beltagy et al. 2020); 0: all before it.
    """
    if implementation != 'xla' and kernels.fits(implementation, *q_BLNH.shape[:2]):
        kernel = {'cudnn': kernels.cudnn, 'splash': kernels.splash}[implementation]
        return kernel(q_BLNH, k_BLKH, v_BLKH, segments_BL, window=window)
    k_BSKH = constrain(k_BLKH, 'batch', 'key_length', 'activation_kv_heads', None)
    v_BSKH = constrain(v_BLKH, 'batch', 'key_length', 'activation_kv_heads', None)
    mask_BLS = causal_mask(q_BLNH.shape[1], segments_BL, window)
    return attend_masked(q_BLNH, k_BSKH, v_BSKH, mask_BLS)


def causal_mask(length: int, segments_BL: jax.Array | None, window: int = 0) -> jax.Array:
    """Returns booleans [B or 1, L, S]: may this query (L) see this key (S)?"""
    mask_BLS = sees(jnp.arange(length)[None, :, None], jnp.arange(length), window)
    if segments_BL is not None:
        mask_BLS &= segments_BL[:, :, None] == segments_BL[:, None, :]
    return mask_BLS


def sees(query: jax.Array, key: jax.Array, window: int) -> jax.Array:
    """Is the key's position before or at the query's, and within the window (0: any)? Shapes broadcast."""
    causal = key <= query
    return causal & (key > query - window) if window else causal


def init_cache(config: ModelConfig, batch_size: int, length: int) -> Cache:
    """Returns an empty cache, in the compute dtype, for `length` positions of every layer."""
    shape = (config.num_layers, batch_size, length, config.num_kv_heads, config.head_dim)
    return {name: jnp.zeros(shape, config.compute_dtype) for name in ('key', 'value')}


def extend(cache: Cache, k_BLKH: jax.Array, v_BLKH: jax.Array, positions_BL: jax.Array) -> Cache:
    """Writes keys and values at their positions, which may differ between rows, in one layer's cache.

    Positions beyond the cache are dropped.
    """
    rows_B1 = jnp.arange(positions_BL.shape[0])[:, None]
    return {
        'key': cache['key'].at[rows_B1, positions_BL].set(k_BLKH, mode='drop'),
        'value': cache['value'].at[rows_B1, positions_BL].set(v_BLKH, mode='drop'),
    }


class Attention(nn.Module):
    """Causal self-attention with grouped heads."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        cache: Cache | None,
        segments_BL: jax.Array | None,
        positions_BL: jax.Array,
        rotation: Rotation | None,
    ) -> tuple[jax.Array, Cache | None]:
        """Returns the branch's output [B, L, D] and the cache with this input's keys and values."""
        config = self.config

        def project(name: str, num_heads: int, axis: str) -> jax.Array:
            features, axes = (num_heads, config.head_dim), ('embed', axis, 'head_dim')
            y = Linear(features, axes, config.qkv_bias, name=name)(x_BLD)
            return constrain(y, 'batch', 'length', f'activation_{axis}', None)

        q_BLNH = project('query', config.num_heads, 'heads')
        k_BLKH = project('key', config.num_kv_heads, 'kv_heads')
        v_BLKH = project('value', config.num_kv_heads, 'kv_heads')
        if config.qk_norm:
            q_BLNH = Norm(config, 'head_dim', name='query_norm')(q_BLNH)
            k_BLKH = Norm(config, 'head_dim', name='key_norm')(k_BLKH)
        if rotation is not None:
            q_BLNH, k_BLKH = rotate(q_BLNH, rotation), rotate(k_BLKH, rotation)

        if cache is None:
            y_BLNH = attend(
                q_BLNH,
                k_BLKH,
                v_BLKH,
                segments_BL,
                implementation=config.attention,
                window=config.sliding_window,
            )
        else:
            cache = extend(cache, k_BLKH, v_BLKH, positions_BL)
            slots_S = jnp.arange(cache['key'].shape[1])
            mask_BLS = sees(positions_BL[:, :, None], slots_S, config.sliding_window)
            y_BLNH = attend_masked(q_BLNH, cache['key'], cache['value'], mask_BLS)
        y_BLNH = constrain(y_BLNH, 'batch', 'length', 'activation_heads', None)
        axes, stddev = ('heads', 'head_dim', 'embed'), residual_stddev(config)
        return Linear((config.embed_dim,), axes, config.use_bias, stddev, name='out')(y_BLNH), cache
