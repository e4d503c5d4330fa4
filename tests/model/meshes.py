"""Run by test_meshes.py: what several meshes of 8 simulated devices compute, as lines of JSON."""

from __future__ import annotations

import functools
import json
import math
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

from configs import base
from model import families, kernels
from model.attention import attend
from model.decoding import Decoding
from model.generation import generate
from model.transformer import Transformer
from objectives import causal
from parallel import rules
from parallel.placement import balanced_order

AXES = ('data', 'fsdp', 'tensor', 'context')
CASES = (
    ('gpt2', (1, 1, 1, 1)),
    ('gpt2', (8, 1, 1, 1)),
    ('gpt2', (1, 2, 2, 2)),
    ('llama', (1, 1, 1, 1)),
    ('llama', (1, 8, 1, 1)),
    ('llama', (2, 2, 2, 1)),
    ('llama', (1, 2, 2, 2)),
)


def make_mesh(shape: tuple[int, ...]) -> jax.sharding.Mesh:
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=devices)


def splash_error(shape: tuple[int, ...], *, placed: bool) -> float:
    """Returns the largest difference of splash's results and gradients on a mesh from XLA's off it."""
    heads = (4, 2, 2, 4)
    q, k, v, weights = (jax.random.normal(jax.random.key(i), (2, 256, n, 8)) for i, n in enumerate(heads))
    segments = jnp.broadcast_to(jnp.arange(256) // 100, (2, 256))

    def results(function, q, k, v, weights, segments):
        def loss(*qkv):
            out = function(*qkv, segments)
            return jnp.sum(out * weights), out

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v))

    arrays = (q, k, v, weights, segments)
    expected = results(functools.partial(attend, implementation='xla'), *arrays)
    with jax.set_mesh(make_mesh(shape)):
        order = balanced_order(*segments.shape) if placed else None
        if placed:
            arrays, expected = jax.tree.map(lambda x: np.asarray(x)[:, order], (arrays, expected))
        found = results(functools.partial(kernels.splash, order_L=order, interpret=True), *arrays)
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in zip(found, expected, strict=True))


def run(family: str, shape: tuple[int, ...]) -> dict:
    config = base.get_config()
    config.update({'sequence_length': 16, 'z_loss': 1e-4, 'label_smoothing': 0.1})
    config.model.update(
        {'family': family, 'num_layers': 2, 'embed_dim': 32, 'num_heads': 4, 'num_kv_heads': 2}
    )
    config.model.update({'dropout_rate': 0.1})
    model_config = families.resolve(config, vocab_size=100)
    model = Transformer(model_config)
    mesh = make_mesh(shape)
    families.check_layout(model_config, mesh.shape)

    def init(key):
        return model.init(key, jnp.zeros((1, 1), jnp.int32))['params']

    def loss(params, batch):
        total, weight, _ = causal.loss(model, params, batch, config=config, dropout_key=jax.random.key(1))
        return total / weight

    shardings = rules.shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
    rows = np.random.default_rng(0).integers(0, 100, (8, 17)).astype(np.int32)
    batch = causal.make_batch(rows, tokenizer=types.SimpleNamespace(bos_id=1, eos_id=2, pad_id=0))
    with jax.set_mesh(mesh):
        params = jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)(jax.random.key(0))
        batch = jax.device_put(batch, NamedSharding(mesh, rules.partition_spec(('batch', 'length'))))
        value, gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))(params, batch)
        prompts, key = [[5, 6, 7], [8]], jax.random.key(2)
        decoding = Decoding(max_new_tokens=4, temperature=0)
        text = generate(model, params, prompts, decoding, key=key, eos_id=2, pad_id=0)
        hidden = jax.jit(lambda *inputs: model.apply(*inputs, output='hidden'))(
            {'params': params}, batch['tokens_BL']
        )
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
    return {
        'loss': float(value),
        'gradient': flat.tolist(),
        'text': text.tolist(),
        'hidden': [*hidden.shape, *hidden.addressable_shards[0].data.shape],
    }


if __name__ == '__main__':
    for family, shape in CASES:
        print(json.dumps({'family': family, 'shape': shape, **run(family, shape)}), flush=True)
    for placed in (False, True):
        print(json.dumps({'splash_error': splash_error((1, 2, 2, 2), placed=placed)}))
