"""The product of activations with a kernel: operands in the activations' dtype, sums in float32.

Its derivatives are written out, for two reasons. The kernel's gradient leaves its product, and is
summed over devices, in float32: derived automatically it would first be rounded to bfloat16. And
every product, forwards and backwards, has two operands of one dtype, which XLA's CPU back end
needs for its bfloat16 instructions (`benchmarks/train_step.py`).

A derivative that nobody asks for, such as a frozen kernel's, is not computed, and nothing that it alone would
need is kept for the backward pass.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from model.held import Held
from parallel import rules
from parallel.collectives import gather, sum_into_shards

Axes = tuple[str, ...]  # of a kernel: a logical axis of parallel/rules.py per dimension


def contract(
    x: jax.Array,
    kernel: jax.Array | Held,
    inputs: int = 1,
    *,
    transposed: bool = False,
    axes: Axes | None = None,
) -> jax.Array:
    """Returns x · kernel in float32.

    Args:
      x: [..., I], where I stands for the last `inputs` axes; any float dtype.
      kernel: [I, O], or [O, I] if `transposed`, where O stands for any axes; rounded to x's dtype. Or such a
        kernel held for a loop, which has no derivative.
      inputs: how many axes are contracted.
      transposed: whether the kernel's last axes are contracted instead of its first.
      axes: of the kernel, which then is rounded before devices gather it, and whose gradient is summed over
        them into its shards, in the kernel's dtype. x must be [B, …] or [B, L, …].

    Returns:
      [..., O].
    """
    if isinstance(kernel, Held):
        return kernel.contract(x, inputs)
    return _contract(x, kernel, inputs, transposed, axes)


def _primal(x: jax.Array, kernel: jax.Array, inputs: int, transposed: bool, axes: Axes | None) -> jax.Array:
    leading = x.ndim - inputs
    kernel_axes = range(kernel.ndim - inputs, kernel.ndim) if transposed else range(inputs)
    sent = _sent(x.dtype, axes, kernel_axes)
    return _product(x, _gathered(kernel, x.dtype, axes), range(leading, x.ndim), kernel_axes, sent)


_contract = jax.custom_vjp(_primal, nondiff_argnums=(2, 3, 4))


def _forward(x, kernel, inputs, transposed, axes):
    """Returns the product, and of x and kernel that which the other's derivative needs."""
    product = _primal(x.value, kernel.value, inputs, transposed, axes)
    dtypes = jnp.empty(0, x.value.dtype), jnp.empty(0, kernel.value.dtype)
    return product, (
        x.value if kernel.perturbed else None,
        kernel.value if x.perturbed else None,
        dtypes,
    )


def _backward(inputs, transposed, axes, residuals, gradient):
    x, kernel, (like_x, like_kernel) = residuals
    gradient = gradient.astype(like_x.dtype)
    by_x = by_kernel = None
    if kernel is not None:
        outputs = kernel.ndim - inputs
        kernel_axes = range(outputs) if transposed else range(inputs, kernel.ndim)
        leading = gradient.ndim - outputs
        gathered = _gathered(kernel, gradient.dtype, axes)
        sent = _sent(gradient.dtype, axes, kernel_axes)
        by_x = _product(gradient, gathered, range(leading, gradient.ndim), kernel_axes, sent)
        by_x = by_x.astype(gradient.dtype)
    if x is not None:
        leading = x.ndim - inputs
        of_x = of_gradient = ()
        if axes is not None:
            outputs = len(axes) - inputs
            of_x, of_gradient = (
                (axes[outputs:], axes[:outputs]) if transposed else (axes[:inputs], axes[inputs:])
            )
        by_kernel = sum_into_shards(
            lambda x, gradient: _by_kernel(x, gradient, leading, transposed).astype(like_kernel.dtype),
            (x, gradient),
            axes,
            (of_x, of_gradient),
        )
    return by_x, by_kernel


def _gathered(kernel: jax.Array, dtype: jnp.dtype, axes: Axes | None) -> jax.Array:
    """Returns the kernel in the dtype of the product, whole along what only its storage is cut over."""
    kernel = kernel.astype(dtype)
    return kernel if axes is None else gather(kernel, axes)


def _by_kernel(x, gradient, leading, transposed):
    """Returns the kernel's gradient in float32.

    A product over the leading axes transposes its first operand: the smaller of the two.
    """
    x_first = x.size <= gradient.size
    first, second = (x, gradient) if x_first else (gradient, x)
    product = _product(first, second, range(leading), range(leading))
    if x_first != transposed:
        return product
    moved = first.ndim - leading
    return jnp.moveaxis(product, range(moved), range(-moved, 0))


_contract.defvjp(_forward, _backward, symbolic_zeros=True)


def _product(
    a: jax.Array, b: jax.Array, a_axes: range, b_axes: range, sent: DTypeLike = jnp.float32
) -> jax.Array:
    """Contracts axes of a with axes of b, summing in float32, but over devices in the dtype `sent`."""
    dimensions = ((tuple(a_axes), tuple(b_axes)), ((), ()))
    a, b = whole(a), whole(b)
    product = whole(jax.lax.dot_general(a, b, dimensions, preferred_element_type=sent))
    return product.astype(jnp.float32)


def _sent(dtype: DTypeLike, axes: Axes | None, contracted: range) -> DTypeLike:
    """Returns the dtype in which devices that have parts of the contracted axes send each other theirs."""
    shared = axes is not None and any(rules.num_shards(rules.at_use(axes[axis])) > 1 for axis in contracted)
    return dtype if shared else jnp.float32


def whole(x: jax.Array) -> jax.Array:
    """Keeps XLA's CPU back end from merging a transpose of x into the product.

    It has no bfloat16 instructions for every layout that may result, and some of them it
    refuses to run: "Unsupported element type for DotThunk::Execute: BF16 x BF16 = F32".
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)
