"""Kernels as a CPU reads them fastest, for a loop that reads them many times with few rows.

A product of few rows is bound by reading its kernel. XLA's CPU back end packs the right operand of a
product anew each time, and reads a left one as it lies: so a held kernel lies outputs first and stands
left. One in bfloat16 is held as its bits: the back end would carry the floats into a loop as float32, of
twice the size. Figures: docs/log.md.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

BITS = jnp.uint16
BLOCK_BYTES = 1 << 20  # of float32, which stay in a core's cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """A kernel [O, I] without a gradient: float32, or bits of bfloat16; `shape` is that of its outputs."""

    values: jax.Array
    shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})

    def rows(self, ids: jax.Array) -> jax.Array:
        """Returns the values of these outputs, float32 [*ids.shape, I]."""
        return _floats(jnp.take(self.values, ids, axis=0))

    def contract(self, x: jax.Array, inputs: int) -> jax.Array:
        """Returns x · kernelᵀ in float32 [..., *shape], x being [..., I] with `inputs` axes in I."""
        leading = x.shape[: x.ndim - inputs]
        x = x.reshape(-1, self.values.shape[1]).astype(jnp.float32)
        product = _product if self.values.dtype == jnp.float32 else _by_blocks
        return product(x, self.values).reshape(*leading, *self.shape)


def hold(kernel: jax.Array, inputs: int = 1, *, transposed: bool = False) -> Held:
    """Returns a kernel [I, O] of `inputs` input axes, or [O, I] if `transposed`, of float32 or bfloat16."""
    if not transposed:
        kernel = jnp.moveaxis(kernel, range(inputs), range(-inputs, 0))
    shape = kernel.shape[:-inputs]
    values = kernel.reshape(math.prod(shape), -1)
    return Held(jax.lax.bitcast_convert_type(values, BITS) if values.dtype == jnp.bfloat16 else values, shape)


def _floats(values: jax.Array) -> jax.Array:
    """Returns float32 values, of which those of bfloat16 are the upper halves."""
    if values.dtype == jnp.float32:
        return values
    return jax.lax.bitcast_convert_type(values.astype(jnp.uint32) << 16, jnp.float32)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x [R, I] · kernel [O, I]ᵀ, [R, O], of float32."""
    if len(x) == 1:
        return jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())))
    # Kept apart from the transpose, with which XLA would exchange the operands again.
    return jax.lax.optimization_barrier(jax.lax.dot_general(kernel, x, (((1,), (1,)), ((), ())))).T


def _by_blocks(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns the same of a kernel's bits, made floats block by block.

    The bits are tied to x, which changes in every pass of a loop, lest the conversion be moved out of it.
    """
    x, bits = jax.lax.optimization_barrier((x, bits))
    size = len(bits)
    most = 1 if jax.sharding.get_abstract_mesh().size > 1 else -(-bits.size * 4 // BLOCK_BYTES)
    count = max(count for count in range(1, min(most, size) + 1) if size % count == 0)
    if count == 1:
        return _product(x, _floats(bits))
    blocks = bits.reshape(count, -1, bits.shape[1])
    products = jax.lax.map(lambda block: _product(x, _floats(block)), blocks)
    return jnp.moveaxis(products, 0, 1).reshape(len(x), size)
