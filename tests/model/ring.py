"""Run by test_ring_attention.py on 8 simulated devices: what the ring computes beside one device, as JSON."""

from __future__ import annotations

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from model.attention import attend
from model.ring_attention import count_blocks, ring
from parallel.placement import balanced_order, in_order, place

AXES = ('data', 'fsdp', 'tensor', 'context')
LENGTH = 64


def make_mesh(shape):
    return jax.make_mesh(
        shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=jax.devices()[: math.prod(shape)]
    )


def inputs(heads: int, kv_heads: int):
    shapes = (
        (2, LENGTH, heads, 8),
        (2, LENGTH, kv_heads, 8),
        (2, LENGTH, kv_heads, 8),
        (2, LENGTH, heads, 8),
    )
    q, k, v, weights = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    segments = np.sort(np.random.default_rng(0).integers(0, 4, (2, LENGTH)), axis=1).astype(np.int32)
    return q, k, v, weights, jnp.asarray(segments)


def results(function, q, k, v, weights, segments):
    def loss(q, k, v):
        y = function(q, k, v, segments)
        return jnp.sum(y * weights), y

    gradients, y = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x) for x in (y, *gradients)]


def error(shape, heads, kv_heads, *, placed: bool, packed: bool, **options) -> float:
    q, k, v, weights, segments = inputs(heads, kv_heads)
    segments = segments if packed else None
    expected = results(functools.partial(attend, implementation='xla', **options), q, k, v, weights, segments)
    with jax.set_mesh(make_mesh(shape)):
        order = balanced_order(2, LENGTH) if placed else None
        if placed:
            q, k, v, weights, segments = (
                None if x is None else place(x, order) for x in (q, k, v, weights, segments)
            )
        found = results(functools.partial(ring, order_L=order, **options), q, k, v, weights, segments)
    if placed:
        expected = [x[:, order] for x in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def counts(context: int, *, placed: bool, window: int = 0) -> list[int]:
    q, k, v, *_ = inputs(4, 2)
    with jax.set_mesh(make_mesh((1, 1, 1, context))):
        order = balanced_order(2, LENGTH) if placed else None
        return jax.jit(functools.partial(count_blocks, order_L=order, window=window))(q, k, v, None).tolist()


def comes_home(context: int) -> bool:
    x = jnp.arange(2 * LENGTH * 3.0).reshape(2, LENGTH, 3)
    with jax.set_mesh(make_mesh((1, 1, 1, context))):
        order = balanced_order(2, LENGTH)
        back = jax.jit(lambda x: in_order(place(x, order)))(x)
    return bool((back == x).all())


if __name__ == '__main__':
    errors = {}
    for shape in ((1, 1, 1, 2), (1, 1, 1, 4), (1, 1, 1, 8), (2, 1, 2, 2)):
        for placed in (True, False):
            errors[f'{shape} placed={placed}'] = error(shape, 4, 2, placed=placed, packed=True)
    four = (1, 1, 1, 4)
    errors['window'] = error(four, 4, 2, placed=True, packed=True, window=11)
    errors['one segment'] = error(four, 4, 4, placed=True, packed=False)
    errors['one key head'] = error(four, 4, 1, placed=True, packed=True)
    errors['not causal'] = error(four, 4, 2, placed=False, packed=True, causal=False)
    errors['one device'] = error((1, 1, 1, 1), 4, 2, placed=False, packed=True)
    blocks = {
        str(context): [counts(context, placed=placed) for placed in (True, False)] for context in (2, 4, 8)
    }
    print(json.dumps({
        'errors': errors,
        'blocks': blocks,
        'window': counts(4, placed=True, window=8),
        'home': [comes_home(context) for context in (2, 4, 8)],
    }))  # fmt: skip
