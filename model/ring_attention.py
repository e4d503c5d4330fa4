"""Self-attention in blocks, those of other devices, where several share a sequence, passed round a ring.

Each device keeps the queries of its positions, while keys and values go from device to device along
the mesh axis that cuts the sequence; softmax is summed up block by block. No device ever holds all
keys, nor more scores than those of two blocks. Blocks of which nothing is visible (later positions,
other segments, beyond the window) cost nothing. Source: Liu et al. 2023 (ring attention); the sums:
Milakov and Gimelshein 2018.

How much a device has to do depends on where its positions stand: see `parallel/placement.py`.

B batch · L length · N query heads · K key/value heads · G = N/K · H head dim
n blocks on a device · b positions of a block
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from model.masked_attention import einsum
from parallel import rules

BLOCK = 1024  # positions of a block, at most
LEAST = jnp.finfo(jnp.float32).min


def ring(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    order_L: jax.Array | None = None,
    causal: bool = True,
    window: int = 0,
) -> jax.Array:
    """Attention within segments, in q's dtype; the arguments are those of `attention.attend`.

    order_L: int32; where in the sequence each place stands, which decides what is before it. None: in order.
    """
    return _attend(*_whole(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L), causal, window)


def count_blocks(
    q_BLNH: jax.Array,
    k_BLKH: jax.Array,
    v_BLKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    order_L: jax.Array | None = None,
    causal: bool = True,
    window: int = 0,
) -> jax.Array:
    """Returns how many pairs of blocks `ring` computes on each device along the sequence, int32 [devices]."""
    return _forward(*_whole(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L), causal, window)[2]


def _whole(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L):
    segments_BL = jnp.zeros(q_BLNH.shape[:2], jnp.int32) if segments_BL is None else segments_BL
    return q_BLNH, k_BLKH, v_BLKH, segments_BL, jnp.arange(q_BLNH.shape[1]) if order_L is None else order_L


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L, causal, window):
    return _forward(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L, causal, window)[0]


def _forward(*arguments):
    *arrays, causal, window = arguments
    local = functools.partial(_local_forward, causal=causal, window=window)
    return _over_devices(local, 'qkkso', 'qlc')(*arrays)


def _attend_forward(*arguments):
    y_BLNH, log_total_BLN, _ = _forward(*arguments)
    return y_BLNH, (*arguments[:5], y_BLNH, log_total_BLN)


def _attend_backward(causal, window, residuals, dy_BLNH):
    local = functools.partial(_local_backward, causal=causal, window=window)
    return *_over_devices(local, 'qkksoqlq', 'qkk')(*residuals, dy_BLNH), None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _over_devices(local: Callable[..., Any], inputs: str, outputs: str) -> Callable[..., Any]:
    """Returns `local` as a function of whole arrays, which are cut as their letters say."""
    if jax.sharding.get_abstract_mesh().empty:
        return local
    specs = {
        'q': rules.partition_spec(('batch', 'length', 'activation_heads', None)),
        'k': rules.partition_spec(('batch', 'length', 'activation_kv_heads', None)),
        's': rules.partition_spec(('batch', 'length')),
        'o': rules.partition_spec(('length',)),
        'l': rules.partition_spec(('batch', 'length', 'activation_heads')),
        'c': rules.partition_spec(('length',)),
    }
    in_specs, out_specs = (tuple(specs[letter] for letter in letters) for letters in (inputs, outputs))
    return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _local_forward(q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L, *, causal, window):
    """Returns y [B, L, N, H], log Σ exp(scores) [B, L, N] and the number of block pairs [1], here."""
    groups, scale = q_BLNH.shape[2] // k_BLKH.shape[2], q_BLNH.shape[-1] ** -0.5
    q_BLNH, places = _with_places(q_BLNH, segments_BL, order_L)
    q_n = _queries(_blocks(q_BLNH), groups)
    sums_shape = (*q_n.shape[:-1], 1)
    state = (jnp.full(sums_shape, LEAST), jnp.zeros(sums_shape), jnp.zeros(q_n.shape, jnp.float32))

    def absorb(query, key):
        (q, q_places, (largest, total, y)), (k, v, k_places) = query, key
        mask = _visible(q_places, k_places, causal, window)

        def add(largest, total, y):
            scores = jnp.where(mask, einsum('BKGLH,BSKH->BKGLS', q, k) * scale, LEAST)
            new = jnp.maximum(largest, jnp.max(scores, axis=-1, keepdims=True))
            weights = jnp.where(mask, jnp.exp(scores - new), 0)
            shrink = jnp.exp(largest - new)
            total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
            y = y * shrink + einsum('BKGLS,BSKH->BKGLH', weights.astype(v.dtype), v)
            return new, total, y

        seen = jnp.any(mask)
        return jax.lax.cond(seen, add, lambda *sums: sums, largest, total, y), seen.astype(jnp.int32)

    def turn(carry):
        keys, state, count = carry
        arriving = _pass_on(keys)

        def of_query(count, query):
            def of_key(carry, key):
                state, count = carry
                state, seen = absorb((*query[:2], state), key)
                return (state, count + seen), None

            (state, count), _ = jax.lax.scan(of_key, (query[2], count), keys)
            return count, state

        count, state = jax.lax.scan(of_query, count, (q_n, places, state))
        return arriving, state, count

    keys = (_blocks(k_BLKH), _blocks(v_BLKH), places)
    _, (largest, total, y), count = _round(turn, (keys, state, jnp.int32(0)))
    y_BLNH = _joined(y / total).astype(q_BLNH.dtype)
    return y_BLNH, _joined(largest + jnp.log(total))[..., 0], count[None]


def _local_backward(
    q_BLNH, k_BLKH, v_BLKH, segments_BL, order_L, y_BLNH, log_total_BLN, dy_BLNH, *, causal, window
):
    """Returns the gradients of q, k and v on one device; those of k and v travel after them, and come home.

    What a device adds to a gradient, it sums up while that is on its way from the device before.
    """
    dtype, head_dim = q_BLNH.dtype, q_BLNH.shape[-1]
    groups, scale = q_BLNH.shape[2] // k_BLKH.shape[2], head_dim**-0.5
    q_BLNH, places = _with_places(q_BLNH, segments_BL, order_L)
    along_y_BLN1 = jnp.sum(dy_BLNH.astype(jnp.float32) * y_BLNH, axis=-1, keepdims=True)
    q_n, dy_n, along_n, log_n = (
        _queries(_blocks(x), groups) for x in (q_BLNH, dy_BLNH, along_y_BLN1, log_total_BLN[..., None])
    )

    def absorb(query, dq, key, dk, dv):
        (q, dy, along_y, log_total, q_places), (k, v, k_places) = query, key
        mask = _visible(q_places, k_places, causal, window)

        def add(dq, dk, dv):
            scores = einsum('BKGLH,BSKH->BKGLS', q, k) * scale
            weights = jnp.where(mask, jnp.exp(scores - log_total), 0)
            by_weights = einsum('BKGLH,BSKH->BKGLS', dy, v)
            by_products = (weights * (by_weights - along_y) * scale).astype(dtype)
            dq += einsum('BKGLS,BSKH->BKGLH', by_products, k)
            dk += einsum('BKGLS,BKGLH->BSKH', by_products, q)
            dv += einsum('BKGLS,BKGLH->BSKH', weights.astype(dtype), dy)
            return dq, dk, dv

        return jax.lax.cond(jnp.any(mask), add, lambda *sums: sums, dq, dk, dv)

    def turn(carry):
        keys, sums, dq_n = carry
        arriving = _pass_on((keys, sums))

        def of_query(carry, query):
            def of_key(dq, key):
                dq, dk, dv = absorb(query[0], dq, *key)
                return dq, (dk, dv)

            dq, carry = jax.lax.scan(of_key, query[1], (keys, *carry))
            return carry, dq

        own, dq_n = jax.lax.scan(of_query, zeros, ((q_n, dy_n, along_n, log_n, places), dq_n))
        keys, sums = arriving
        return keys, jax.tree.map(jnp.add, sums, own), dq_n

    keys = (_blocks(k_BLKH), _blocks(v_BLKH), places)
    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in keys[:2])
    _, sums, dq_n = _round(turn, (keys, zeros, jnp.zeros(q_n.shape, jnp.float32)))
    dk_BLKH, dv_BLKH = (jnp.moveaxis(x, 0, 1).reshape(k_BLKH.shape).astype(dtype) for x in _pass_on(sums))
    return _joined(dq_n).astype(dtype), dk_BLKH, dv_BLKH


def _with_places(q_BLNH, segments_BL, order_L):
    """Returns the queries, and blocks of segments and order.

    Without the barrier, JAX finds that all layers have the same masks, and makes those of all pairs of blocks
    before the first.
    """
    q_BLNH, *places = jax.lax.optimization_barrier((q_BLNH, segments_BL, order_L[None]))
    return q_BLNH, tuple(_blocks(x) for x in places)


def _round(turn: Callable[[Any], Any], carry: Any) -> Any:
    """Returns what `turn` makes of the carry when each device's keys have been here."""
    count = rules.num_shards('length')
    if count == 1:  # in a loop, JAX would find that the keys stay, and make all scores before it
        return turn(carry)
    return jax.lax.scan(lambda carry, _: (turn(carry), None), carry, length=count)[0]


def _pass_on(tree: Any) -> Any:
    """Sends arrays to the next device of the ring, and returns those of the one before."""
    count, axes = rules.num_shards('length'), rules.mesh_axes('length')
    if count == 1:
        return tree
    ahead = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, ahead), tree)


def _visible(q_places, k_places, causal: bool, window: int) -> jax.Array:
    """Returns booleans [B, 1, 1, b, b]: may this query see this key?"""
    (q_segments, q_order), (k_segments, k_order) = q_places, k_places
    mask = q_segments[:, :, None] == k_segments[:, None, :]
    if causal:
        mask &= k_order[:, None, :] <= q_order[:, :, None]
        if window:
            mask &= k_order[:, None, :] > q_order[:, :, None] - window
    return mask[:, None, None]


def _blocks(x: jax.Array) -> jax.Array:
    """Returns [n, B, b, …] of x [B, L, …]."""
    length = x.shape[1]
    count = 1
    if length % 2 == 0:
        count = next(n for n in range(2, length + 1, 2) if length % n == 0 and length // n <= BLOCK)
    return jnp.moveaxis(x.reshape(x.shape[0], count, length // count, *x.shape[2:]), 1, 0)


def _queries(x: jax.Array, groups: int) -> jax.Array:
    """Returns [n, B, K, G, b, …] of x [n, B, b, N, …]."""
    blocks, batch, length, num_heads, *rest = x.shape
    return jnp.moveaxis(x.reshape(blocks, batch, length, num_heads // groups, groups, *rest), 2, 4)


def _joined(x: jax.Array) -> jax.Array:
    """Returns [B, L, N, …] of x [n, B, K, G, b, …]."""
    blocks, batch, kv_heads, groups, length, *rest = x.shape
    return jnp.moveaxis(x, (0, 4), (1, 2)).reshape(batch, blocks * length, kv_heads * groups, *rest)
