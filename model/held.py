"""Kernels as a CPU reads them fastest, for a loop that reads them many times with few rows.

A product of few rows is bound by reading its kernel. XLA's CPU back end packs the right operand of a
product anew each time, and reads a left one as it lies: so a held kernel lies outputs first and stands
left. Figures: docs/log.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """A kernel [O, I] without a gradient, in the dtype of its products; `shape` is that of its outputs."""

    values: jax.Array
    shape: tuple[int, ...] = dataclasses.field(metadata={'static': True})

    def contract(self, x: jax.Array, inputs: int) -> jax.Array:
        """Returns x · kernelᵀ in float32 [..., *shape], x being [..., I] with `inputs` axes in I."""
        leading = x.shape[: x.ndim - inputs]
        x = x.reshape(-1, self.values.shape[1]).astype(self.values.dtype)
        return _product(x, self.values).reshape(*leading, *self.shape)


def hold(kernel: jax.Array, inputs: int = 1, *, transposed: bool = False) -> Held:
    """Returns a kernel [I, O] of `inputs` input axes, or [O, I] if `transposed`, of float32 or bfloat16.

    Where the processor cannot multiply bfloat16, it is held as float32, once instead of in every product.
    """
    if not transposed:
        kernel = jnp.moveaxis(kernel, range(inputs), range(-inputs, 0))
    shape = kernel.shape[:-inputs]
    values = kernel.reshape(math.prod(shape), -1)
    return Held(values if multiplies_bfloat16() else values.astype(jnp.float32), shape)


@functools.cache
def multiplies_bfloat16() -> bool:
    """Has the back end's library bfloat16 products for this processor, which are those with AVX-512?"""
    cpus = Path('/proc/cpuinfo')
    return cpus.exists() and ' avx512bw ' in cpus.read_text()


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x [R, I] · kernel [O, I]ᵀ, float32 [R, O], of operands in one dtype."""
    rows = len(x)
    if rows == 1 and x.dtype == jnp.float32:
        return _of_one_row(x, kernel)
    # A single row of bfloat16 would be computed in float32, from a copy of the kernel.
    x = jnp.pad(x, ((0, max(2 - rows, 0)), (0, 0)))
    x = jax.lax.optimization_barrier(x)
    dimensions = (((1,), (1,)), ((), ()))
    product = jax.lax.dot_general(kernel, x, dimensions, preferred_element_type=jnp.float32)
    # Kept apart from the transpose, with which XLA would exchange the operands again.
    return jax.lax.optimization_barrier(product)[:, :rows].T


def _of_one_row(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the same of one row [1, I] in float32.

    As two halves of the outputs, between which cores divide kernels too small to be divided otherwise.
    """
    if len(kernel) % 2:
        return jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())))
    halves = kernel.reshape(2, -1, kernel.shape[1])
    rows = jnp.broadcast_to(x, (2, *x.shape))
    return jax.lax.dot_general(halves, rows, (((2,), (2,)), ((0,), (0,)))).reshape(1, -1)
