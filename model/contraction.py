"""The product of activations with a kernel: operands in the activations' dtype, sums in float32.

Its derivatives are written out, for two reasons. The kernel's gradient leaves its product, and is
summed over devices, in float32: derived automatically it would first be rounded to bfloat16. And
every product, forwards and backwards, has two operands of one dtype, which XLA's CPU back end
needs for its bfloat16 instructions (`benchmarks/train_step.py`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contract(x: jax.Array, kernel: jax.Array, inputs: int = 1, *, transposed: bool = False) -> jax.Array:
    """Returns x · kernel in float32.

    Args:
      x: [..., I], where I stands for the last `inputs` axes; any float dtype.
      kernel: [I, O], or [O, I] if `transposed`, where O stands for any axes; rounded to x's dtype.
      inputs: how many axes are contracted.
      transposed: whether the kernel's last axes are contracted instead of its first.

    Returns:
      [..., O].
    """
    return _contract(x, kernel, inputs, transposed)


def _primal(x: jax.Array, kernel: jax.Array, inputs: int, transposed: bool) -> jax.Array:
    return _forward(x, kernel, inputs, transposed)[0]


_contract = jax.custom_vjp(_primal, nondiff_argnums=(2, 3))


def _forward(x, kernel, inputs, transposed):
    leading = x.ndim - inputs
    kernel_axes = range(kernel.ndim - inputs, kernel.ndim) if transposed else range(inputs)
    product = _product(x, kernel.astype(x.dtype), range(leading, x.ndim), kernel_axes)
    return product, (x, kernel)


def _backward(inputs, transposed, residuals, gradient):
    x, kernel = residuals
    gradient = gradient.astype(x.dtype)
    leading = range(x.ndim - inputs)
    outputs = kernel.ndim - inputs
    kernel_axes = range(outputs) if transposed else range(inputs, kernel.ndim)
    by_x = _product(gradient, kernel.astype(x.dtype), range(len(leading), gradient.ndim), kernel_axes)
    return by_x.astype(x.dtype), _by_kernel(x, gradient, len(leading), transposed).astype(kernel.dtype)


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


_contract.defvjp(_forward, _backward)


def _product(a: jax.Array, b: jax.Array, a_axes: range, b_axes: range) -> jax.Array:
    """Contracts axes of a with axes of b, summing in float32."""
    dimensions = ((tuple(a_axes), tuple(b_axes)), ((), ()))
    a, b = whole(a), whole(b)
    return whole(jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32))


def whole(x: jax.Array) -> jax.Array:
    """Keeps XLA's CPU back end from merging a transpose of x into the product.

    It has no bfloat16 instructions for every layout that may result, and some of them it
    refuses to run: "Unsupported element type for DotThunk::Execute: BF16 x BF16 = F32".
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)
