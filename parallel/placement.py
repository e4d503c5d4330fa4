"""Where each position of a sequence stands when devices share it, so that all have equal work.

In order, causal attention would let the device with the last positions see all keys, and the first only
its own. So the sequence is cut into two chunks a device, and device i of C holds chunks i and
2C − 1 − i: each then has the same number of visible pairs. Source: Dubey et al. 2024 (Llama 3), 3.3.2.

A model places tokens when it begins, and takes its last hidden states back into order; in between,
`balanced_order` says what is before what.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from parallel import rules


def balanced_order(batch_size: int, length: int) -> np.ndarray | None:
    """Returns int32 [L], which position stands at each place; None where order is as good or needed.

    That is, where one device holds all positions, or the sizes do not divide.
    """
    devices = rules.num_shards('length')
    if devices == 1 or length % (2 * devices) or batch_size % rules.num_shards('batch'):
        return None
    chunks = np.arange(length, dtype=np.int32).reshape(2 * devices, -1)
    return np.concatenate(
        [np.stack([chunks[i], chunks[2 * devices - 1 - i]]).ravel() for i in range(devices)]
    )


def place(x_BL: jax.Array, order_L: np.ndarray) -> jax.Array:
    """Returns an array [B, L] of small items, such as tokens, placed in `order_L`."""
    return jnp.take(x_BL, order_L, axis=1)


def in_order(x_BLD: jax.Array) -> jax.Array:
    """Returns placed hidden states [B, L, D] in the order of the sequence; each is sent once."""
    devices, axes = rules.num_shards('length'), rules.mesh_axes('length')
    spec = rules.partition_spec(('batch', 'length', 'activation_embed'))

    def local(x_BLD: jax.Array) -> jax.Array:
        # Of a device's two chunks, i and 2C − 1 − i, one is even and one odd; it goes to the first or second
        # half of the device whose chunks are 2d and 2d + 1.
        low, high = jnp.split(x_BLD, 2, axis=1)
        is_even = jax.lax.axis_index(axes) % 2 == 0
        halves = (jnp.where(is_even, low, high), jnp.where(is_even, high, low))
        return jnp.concatenate(
            [jax.lax.ppermute(half, axes, _homes(devices, odd)) for odd, half in enumerate(halves)], axis=1
        )

    return jax.shard_map(local, in_specs=spec, out_specs=spec)(x_BLD)


def _homes(devices: int, odd: int) -> list[tuple[int, int]]:
    """Returns (device that holds it, device it goes to) of all even, or odd, chunks."""
    chunks = range(odd, 2 * devices, 2)
    return [(chunk if chunk < devices else 2 * devices - 1 - chunk, chunk // 2) for chunk in chunks]
