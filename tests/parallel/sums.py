"""Run by test_collectives.py: gathers, sums and losses on 8 simulated devices, as lines of JSON."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from model.contraction import contract
from model.lookup import lookup
from model.unembedding import Unembedding
from parallel import rings, rules
from parallel.collectives import gather
from parallel.mesh import make_mesh

random = np.random.default_rng(0)
B, L, D, V = 8, 4, 16, 24
x, w = (random.standard_normal((B, L, D)).astype(np.float32) for _ in range(2))
by_y = random.standard_normal((B, L, V)).astype(np.float32)
kernel = random.standard_normal((D, V)).astype(np.float32)
bias = random.standard_normal(V).astype(np.float32)
ids = random.integers(0, V, (B, L)).astype(np.int32)
weights = random.standard_normal((3, B, L)).astype(np.float32)

# mesh → rings of `fsdp` to take it for, as if the devices were wired as a torus; None: those that it has
MESHES = {
    (1, 8, 1, 1): [None, (4, 2), (2, 4), (2, 2, 2)],
    (8, 1, 1, 1): [None],
    (2, 2, 2, 1): [None],
    (1, 2, 2, 2): [None],
    (1, 4, 1, 2): [None],
    (1, 4, 2, 1): [(2, 2), (2, 2, 1)],
}


def error(found, expected) -> float:
    return max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


def put(array, *axes):
    mesh = jax.sharding.get_mesh()
    return jax.device_put(array, NamedSharding(mesh, rules.partition_spec(axes)))


def by_kernel(x, kernel, by_y):
    """The kernel's gradient of a product."""
    return jax.grad(lambda kernel: jnp.sum(contract(x, kernel, axes=('embed', 'vocab')) * by_y))(kernel)


def compute(x, kernel, table, ids):
    """Gradients of a product, a look-up, and statistics of logits whole and in blocks, of both layouts."""

    def looked_up(table):
        return jnp.sum((lookup(table, ids, 'vocab') + lookup(table, ids, 'vocab', blocks=3)) / 2 * w)

    def statistics(x, kernel, table, bias, blocks):
        one = Unembedding(x, None, kernel, bias).statistics(ids, blocks)
        other = Unembedding(x, table, None, None).statistics(ids, blocks)
        return sum(jnp.sum(a * b) for each in (one, other) for a, b in zip(each, weights, strict=True))

    blocked = jax.value_and_grad(statistics, argnums=(0, 1, 2, 3))(x, kernel, table, bias, 3)
    return by_kernel(x, kernel, by_y), jax.grad(looked_up)(table), blocked


def expected():
    """The same from formulas that JAX differentiates itself, on one device."""

    def statistics(x, kernel, table, bias):
        total = 0.0
        for logits in (x @ kernel + bias, x @ table.T):
            target = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
            three = jax.nn.logsumexp(logits, axis=-1), target, jnp.mean(logits, axis=-1)
            total += sum(jnp.sum(a * b) for a, b in zip(three, weights, strict=True))
        return total

    by_kernel = np.einsum('bld,blv->dv', x, by_y)
    by_table = np.zeros((V, D), np.float32)
    np.add.at(by_table, ids, w)
    return (
        by_kernel,
        by_table,
        jax.value_and_grad(statistics, argnums=(0, 1, 2, 3))(x, kernel, kernel.T, bias),
    )


if __name__ == '__main__':
    right = jax.device_get(expected())
    for shape, tries in MESHES.items():
        mesh = make_mesh(dict(zip(('data', 'fsdp', 'tensor', 'context'), shape, strict=True)))
        with jax.set_mesh(mesh):
            arguments = (
                put(x, 'batch', 'length', None),
                put(kernel, 'embed', 'vocab'),
                put(kernel.T, 'vocab', 'embed'),
                put(ids, 'batch', 'length'),
            )
            for sizes in tries:
                if sizes:
                    rings._SIZES[tuple(mesh.shape.items())]['fsdp'] = sizes
                jax.clear_caches()
                compiled = jax.jit(compute).lower(*arguments).compile()
                of_product = (
                    put(x, 'batch', 'length', None),
                    arguments[1],
                    put(by_y, 'batch', 'length', 'vocab'),
                )
                product = jax.jit(by_kernel).lower(*of_product).compile().as_text()
                whole = jax.jit(lambda k: gather(k, ('embed', 'vocab')))(arguments[1])
                line = {
                    'shape': shape,
                    'rings': sizes,
                    'error': error(jax.device_get(compiled(*arguments)), right),
                    'gathered': error(jax.device_get(whole), kernel),
                    'gathers of the product': product.count(' all-gather('),
                    'scatters': compiled.as_text().count(' reduce-scatter('),
                }
                print(json.dumps(line), flush=True)
