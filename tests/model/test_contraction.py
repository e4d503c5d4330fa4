"""Products with written-out derivatives against the plain formulas that JAX differentiates itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.contraction import contract
from model.held import hold, multiplies_bfloat16
from model.lookup import lookup
from model.masked_attention import attend_masked

# (x, kernel, contracted axes, transposed): wide and narrow outputs, and several axes on either side.
SHAPES = [
    ((2, 5, 7), (7, 3), 1, False),
    ((2, 5, 3), (3, 2, 6), 1, False),
    ((2, 5, 2, 6), (2, 6, 4), 2, False),
    ((2, 5, 7), (3, 7), 1, True),
    ((2, 5, 3), (9, 3), 1, True),
    ((1, 1, 3), (3, 1), 1, False),
]


def formula(x, kernel, inputs, transposed):
    axes = range(kernel.ndim - inputs, kernel.ndim) if transposed else range(inputs)
    return jnp.tensordot(x, kernel, (tuple(range(x.ndim - inputs, x.ndim)), tuple(axes)))


def value_and_gradients(function, gradient, *arrays):
    """Returns the function's value and the arrays' gradients, compiled as training compiles them."""

    def compute(gradient, *arrays):
        value, pull_back = jax.vjp(function, *arrays)
        return value, *pull_back(gradient.astype(value.dtype))

    return jax.jit(compute)(gradient, *arrays)


@pytest.mark.parametrize(('x_shape', 'kernel_shape', 'inputs', 'transposed'), SHAPES)
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-5), ('bfloat16', 5e-2)])
def test_products_and_gradients_equal_the_formula(
    dtype, tolerance, x_shape, kernel_shape, inputs, transposed
):
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.standard_normal(shape), 'float32') for shape in (x_shape, kernel_shape))
    plain = lambda x, kernel: formula(x, kernel, inputs, transposed)  # noqa: E731
    gradient = jnp.asarray(random.standard_normal(plain(x, kernel).shape), 'float32')
    expected = value_and_gradients(plain, gradient, x, kernel)
    ours = lambda x, kernel: contract(x, kernel, inputs, transposed=transposed)  # noqa: E731
    found = value_and_gradients(ours, gradient, x.astype(dtype), kernel)
    for one, other in zip(found, expected, strict=True):
        # bfloat16 keeps 8 bits; sums of up to 12 products of numbers around 1.
        np.testing.assert_allclose(one.astype('float32'), other, atol=tolerance * 4, rtol=tolerance)


@pytest.mark.parametrize(('x_shape', 'kernel_shape', 'inputs', 'transposed'), SHAPES)
def test_of_a_frozen_kernel_nothing_is_computed_or_kept(x_shape, kernel_shape, inputs, transposed):
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.standard_normal(shape), 'float32') for shape in (x_shape, kernel_shape))
    ours = lambda x, kernel: contract(x, kernel, inputs, transposed=transposed)  # noqa: E731
    both, of_x, of_kernel = (
        jax.vjp(*case)[1]
        for case in (
            (ours, x, kernel),
            (lambda x: ours(x, kernel), x),
            (lambda kernel: ours(x, kernel), kernel),
        )
    )
    gradient = jnp.asarray(random.standard_normal(ours(x, kernel).shape), 'float32')
    by_x, by_kernel = both(gradient)
    np.testing.assert_array_equal(of_x(gradient)[0], by_x)
    np.testing.assert_array_equal(of_kernel(gradient)[0], by_kernel)
    kept = lambda pull_back: sorted(leaf.size for leaf in jax.tree.leaves(pull_back) if leaf.size)  # noqa: E731
    assert kept(of_x) == [kernel.size]
    assert kept(of_kernel) == [x.size]
    products = lambda pull_back: str(jax.make_jaxpr(pull_back)(gradient)).count('dot_general')  # noqa: E731
    assert products(of_x) == products(of_kernel) == products(both) / 2


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('in_float32', [False, True])
@pytest.mark.parametrize(('x_shape', 'kernel_shape', 'inputs', 'transposed'), SHAPES)
def test_a_held_kernel_gives_the_same_product(
    x_shape, kernel_shape, inputs, transposed, in_float32, dtype, monkeypatch
):
    if in_float32:
        monkeypatch.setattr('model.held.multiplies_bfloat16', lambda: False)
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal(x_shape), dtype)
    kernel = jnp.asarray(random.standard_normal(kernel_shape), dtype)
    held = hold(kernel, inputs, transposed=transposed)
    assert held.values.dtype == ('float32' if in_float32 or not multiplies_bfloat16() else dtype)
    # The same float32 sums, perhaps in another order.
    expected = contract(x, kernel, inputs, transposed=transposed)
    found = contract(x, held, inputs, transposed=transposed)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_of_a_held_table_are_its_own():
    table = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3)), 'bfloat16')
    ids = jnp.array([[6, 0], [3, 3]])
    found = lookup(hold(table, transposed=True), ids, 'vocab', 'bfloat16')
    np.testing.assert_array_equal(found, table[ids])


def test_the_gradient_of_a_bfloat16_product_is_summed_in_float32():
    x, kernel = jnp.ones((1, 4096, 1), 'bfloat16'), jnp.ones((1, 1))
    gradient = jax.grad(lambda kernel: jnp.sum(contract(x, kernel)))(kernel)
    assert gradient.dtype == jnp.float32
    assert float(jax.grad(lambda kernel: jnp.sum(contract(x[:, :4095], kernel)))(kernel)[0, 0]) == 4095
    assert float(gradient[0, 0]) == 4096


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 2e-5), ('bfloat16', 5e-2)])
def test_attention_and_gradients_equal_the_formula(dtype, tolerance, num_kv_heads):
    batch, length, num_heads, head_dim = 2, 12, 4, 8
    random = np.random.default_rng(0)
    mask = jnp.asarray(np.tril(random.random((batch, length, length)) < 0.5) | np.eye(length, dtype=bool))

    def plain(q, k, v):
        k, v = (jnp.repeat(x, num_heads // num_kv_heads, axis=2) for x in (k, v))
        scores = jnp.where(mask[:, None], jnp.einsum('blnh,bsnh->bnls', q, k) / head_dim**0.5, -jnp.inf)
        return jnp.einsum('bnls,bsnh->blnh', jax.nn.softmax(scores, axis=-1), v)

    heads = (num_heads, num_heads, num_kv_heads, num_kv_heads)  # gradient, q, k, v
    gradient, *arrays = (
        jnp.asarray(random.standard_normal((batch, length, count, head_dim)), 'float32') for count in heads
    )
    expected = value_and_gradients(plain, gradient, *arrays)
    cast = [x.astype(dtype) for x in arrays]
    found = value_and_gradients(lambda *qkv: attend_masked(*qkv, mask), gradient, *cast)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.astype('float32'), other, atol=tolerance * 4, rtol=tolerance)
