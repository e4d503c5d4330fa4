"""Attention: the formula, its back ends, the key/value cache, and the projections around them.

B batch · L query length · S key length · D embed · N query heads · K key/value heads · H head dim · G = N/K
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model import kernels
from model.families import ModelConfig
from model.layers import Linear, Norm, residual_stddev
from model.masked_attention import attend_cached, attend_masked, heads_first
from model.positions import Rotation, rotate
from model.ring_attention import ring
from parallel import rules
from parallel.placement import balanced_order
from parallel.rules import constrain

# Of one layer; of a model with [layers] in front of all, or one for each layer.
#   'key', 'value': [B, K, S, H]
#   'encoder_key', 'encoder_value': the same of an encoder's output; 'encoder_mask': booleans [B, S]
Cache = dict[str, jax.Array]
Caches = Cache | tuple[Cache, ...]


class Context(NamedTuple):
    """What blocks see beside the residual stream; the same in all of them."""

    segments_BL: jax.Array | None
    positions_BL: jax.Array
    rotation: Rotation | None = None
    bias_BNLS: jax.Array | None = None  # added to the scores, float32
    prefix_BL: jax.Array | None = None  # positions that all of their segment see
    encoded_BSD: jax.Array | None = None
    encoder_segments_BS: jax.Array | None = None


def attend(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    implementation: str,
    order_L: np.ndarray | None = None,
    causal: bool = True,
    window: int = 0,
    prefix_BL: jax.Array | None = None,
    bias_BNLS: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Self-attention within segments, softmax(q kᵀ · scale + bias) v, in q's dtype.

    Args:
      q_BLNH, k_BLKH, v_BLKH: N is a multiple of K; each key/value head serves N/K query heads.
      segments_BL: int32; a position attends only to its own segment, so that padding
        (segment 0) attends to padding and nothing else does. None: all one segment.
      implementation: 'xla', 'blockwise', 'cudnn' or 'splash'; what these cannot take goes to 'xla'. So does
        'xla' to 'blockwise' for sequences that devices share: none gathers the keys and values of all.
      order_L: int32; which position stands at each place (`parallel.placement`). None: they are in order.
      causal: whether a position sees only itself and what stands before it.
      window: a position sees this many, its own included (Beltagy et al. 2020); 0: all before it.
      prefix_BL: booleans; these positions are seen by all of their segment, causal or not.
      bias_BNLS: float32, 1 or B in front; None: none.
      scale: None: 1/√H.
    """
    plain = prefix_BL is None and bias_BNLS is None and scale is None
    if implementation == 'xla' and rules.num_shards('length') > 1:
        implementation = 'blockwise'
    if implementation != 'xla' and plain and kernels.fits(implementation, *q_BLNH.shape[:2]):
        kernel = {'blockwise': ring, 'cudnn': kernels.cudnn, 'splash': kernels.splash}[implementation]
        return kernel(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L=order_L, causal=causal, window=window)
    k_BSKH = constrain(k_BLKH, 'batch', 'key_length', 'activation_kv_heads', None)
    v_BSKH = constrain(v_BLKH, 'batch', 'key_length', 'activation_kv_heads', None)
    order_L = np.arange(q_BLNH.shape[1]) if order_L is None else order_L
    mask_BLS = visible(order_L, segments_BL, causal=causal, window=window, prefix_BL=prefix_BL)
    return attend_masked(q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, scale=scale)


def visible(
    order_L: np.ndarray,
    segments_BL: jax.Array | None,
    *,
    causal: bool = True,
    window: int = 0,
    prefix_BL: jax.Array | None = None,
) -> jax.Array:
    """Returns booleans [B or 1, L, S]: may this query (L) see this key (S)?"""
    mask_BLS = jnp.ones((1, len(order_L), len(order_L)), bool)
    if causal:
        mask_BLS = sees(jnp.asarray(order_L)[None, :, None], jnp.asarray(order_L), window)
    if prefix_BL is not None:
        mask_BLS |= prefix_BL[:, None, :]
    if segments_BL is not None:
        mask_BLS &= segments_BL[:, :, None] == segments_BL[:, None, :]
    return mask_BLS


def sees(query: jax.Array, key: jax.Array, window: int) -> jax.Array:
    """Is the key's position before or at the query's, and within the window (0: any)? Shapes broadcast."""
    causal = key <= query
    return causal & (key > query - window) if window else causal


def init_cache(config: ModelConfig, batch_size: int, length: int) -> Cache:
    """Returns an empty cache, in the compute dtype, for `length` positions of every layer.

    On CPUs it is float32: to write into bfloat16, their back end converts all of it there and back. What an
    encoder-decoder's needs besides comes with what is encoded.
    """
    shape = (config.num_layers, batch_size, config.num_kv_heads, length, config.head_dim)
    dtype = jnp.float32 if jax.default_backend() == 'cpu' else config.compute_dtype
    return {name: jnp.zeros(shape, dtype) for name in ('key', 'value')}


def extend(cache: Cache, k_BLKH: jax.Array, v_BLKH: jax.Array, positions_BL: jax.Array) -> Cache:
    """Writes keys and values at their positions, which may differ between rows, in one layer's cache.

    Positions beyond the cache are dropped.
    """
    rows, heads, slots = jnp.arange(len(positions_BL))[:, None], slice(None), positions_BL
    if slots.size == 1 and jax.default_backend() == 'cpu':
        # Of one index XLA makes no scatter but a slice, which its CPU back end merges into all that reads the
        # cache, so that a loop copies it four times.
        rows, heads, slots = rows[..., None], jnp.arange(k_BLKH.shape[2]), slots[..., None]
    return cache | {
        name: cache[name].at[rows, heads, slots].set(x_BLKH.astype(cache[name].dtype), mode='drop')
        for name, x_BLKH in (('key', k_BLKH), ('value', v_BLKH))
    }


class Projections(nn.Module):
    """The linear maps into the heads and out of them, of either kind of attention."""

    config: ModelConfig

    def project(self, x_BLD: jax.Array, name: str) -> jax.Array:
        """Returns x in heads [B, L, N or K, H]: 'query', 'key' or 'value'."""
        config = self.config
        heads, axis = (config.num_heads, 'heads') if name == 'query' else (config.num_kv_heads, 'kv_heads')
        features, axes = (heads, config.head_dim), ('embed', axis, 'head_dim')
        y = Linear(features, axes, config.qkv_bias, lora=config.lora, name=name)(x_BLD)
        return constrain(y, 'batch', 'length', f'activation_{axis}', None)

    def merge(self, y_BLNH: jax.Array) -> jax.Array:
        """Returns the branch's output [B, L, D]."""
        config = self.config
        y_BLNH = constrain(y_BLNH, 'batch', 'length', 'activation_heads', None)
        axes, stddev = ('heads', 'head_dim', 'embed'), residual_stddev(config)
        out = Linear((config.embed_dim,), axes, config.use_bias, stddev, config.lora, name='out')
        return out(y_BLNH)

    @property
    def scale(self) -> float | None:
        """What scores are multiplied by; None: 1/√H."""
        return None if self.config.scale_attention else 1.0


class Attention(Projections):
    """Self-attention with grouped heads; `balanced`: positions are placed by `parallel.placement`."""

    causal: bool = True
    balanced: bool = False

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, cache: Cache | None, context: Context
    ) -> tuple[jax.Array, Cache | None]:
        """Returns the branch's output [B, L, D] and the cache with this input's keys and values."""
        config = self.config
        q_BLNH, k_BLKH, v_BLKH = (self.project(x_BLD, name) for name in ('query', 'key', 'value'))
        if config.qk_norm:
            q_BLNH = Norm(config, 'head_dim', name='query_norm')(q_BLNH)
            k_BLKH = Norm(config, 'head_dim', name='key_norm')(k_BLKH)
        if context.rotation is not None:
            q_BLNH, k_BLKH = rotate(q_BLNH, context.rotation), rotate(k_BLKH, context.rotation)
        if cache is None:
            y_BLNH = attend(
                q_BLNH,
                k_BLKH,
                v_BLKH,
                context.segments_BL,
                implementation=config.attention,
                order_L=balanced_order(*x_BLD.shape[:2]) if self.balanced else None,
                causal=self.causal,
                window=config.sliding_window,
                prefix_BL=context.prefix_BL,
                bias_BNLS=context.bias_BNLS,
                scale=self.scale,
            )
            return self.merge(y_BLNH), None
        cache = extend(cache, k_BLKH, v_BLKH, context.positions_BL)
        slots_S = jnp.arange(cache['key'].shape[2])
        mask_BLS = sees(context.positions_BL[:, :, None], slots_S, config.sliding_window)
        if context.prefix_BL is not None:  # of the input, which fills the first slots
            prefix_BS = jnp.pad(context.prefix_BL, ((0, 0), (0, len(slots_S) - x_BLD.shape[1])))
            mask_BLS |= prefix_BS[:, None, :]
        y_BLNH = attend_cached(
            q_BLNH, cache['key'], cache['value'], mask_BLS, context.bias_BNLS, scale=self.scale
        )
        return self.merge(y_BLNH), cache


class CrossAttention(Projections):
    """Attention of a decoder to an encoder's output, within segments."""

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, cache: Cache | None, context: Context
    ) -> tuple[jax.Array, Cache | None]:
        """Returns the branch's output [B, L, D], and the cache with the keys and values of what was encoded.

        With a cache, every position sees all that is encoded of its row, whose padding is segment 0; without
        `context.encoded_BSD`, that which is in the cache.
        """
        q_BLNH = self.project(x_BLD, 'query')
        if context.encoded_BSD is None:
            assert cache is not None
            k_BKSH, v_BKSH = cache['encoder_key'], cache['encoder_value']
            mask_BLS = cache['encoder_mask'][:, None, :]
            return self.merge(attend_cached(q_BLNH, k_BKSH, v_BKSH, mask_BLS, scale=self.scale)), cache
        k_BSKH, v_BSKH = (self.project(context.encoded_BSD, name) for name in ('key', 'value'))
        k_BSKH = constrain(k_BSKH, 'batch', 'key_length', 'activation_kv_heads', None)
        v_BSKH = constrain(v_BSKH, 'batch', 'key_length', 'activation_kv_heads', None)
        mask_BLS = self._visible(x_BLD.shape[:2], cache, context)
        if cache is not None:
            encoder_mask = jnp.broadcast_to(mask_BLS[:, 0], k_BSKH.shape[:2])
            kept = {'encoder_key': heads_first(k_BSKH), 'encoder_value': heads_first(v_BSKH)}
            cache |= kept | {'encoder_mask': encoder_mask}
        return self.merge(attend_masked(q_BLNH, k_BSKH, v_BSKH, mask_BLS, scale=self.scale)), cache

    def _visible(self, shape: tuple[int, ...], cache: Cache | None, context: Context) -> jax.Array:
        """Returns booleans [B or 1, L or 1, S]: may this query see what is encoded there?"""
        encoder_segments_BS = context.encoder_segments_BS
        if encoder_segments_BS is None:
            assert context.encoded_BSD is not None
            return jnp.ones((1, 1, context.encoded_BSD.shape[1]), bool)
        if cache is not None:
            return encoder_segments_BS[:, None, :] > 0
        segments_BL = jnp.ones(shape, jnp.int32) if context.segments_BL is None else context.segments_BL
        return segments_BL[:, :, None] == encoder_segments_BS[:, None, :]
