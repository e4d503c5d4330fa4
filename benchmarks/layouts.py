"""Loss and gradients of every family over meshes of eight simulated devices, beside those of one device.

  python -m benchmarks.layouts

Small models in float32 (two layers, width 64, four heads, LLaMA with two for keys and values) on rows in
which several documents stand side by side, so that segments and positions count. Printed is for each mesh
(data × fsdp × tensor × context) how far the loss is from that of one device, and how far the gradient: the
norm of their difference over its norm.
"""

from __future__ import annotations

import argparse
import math
import os
from types import ModuleType
from typing import Any

os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
os.environ.setdefault('NPROC', '32')  # threads, as parallel.processes sets them
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from ml_collections import ConfigDict

import objectives
from configs import base
from model import families
from model.transformer import Transformer
from parallel import compiler, rules
from parallel import mesh as meshes
from planning.step import Vocabulary

FAMILIES = {'gpt2': 'causal', 'llama': 'causal', 'bert': 'masked', 't5': 'span_corruption'}
AXES = ('data', 'fsdp', 'tensor', 'context')
MESHES = (
    (8, 1, 1, 1),
    (1, 8, 1, 1),
    (2, 2, 2, 1),
    (1, 1, 1, 2),
    (1, 1, 1, 4),
    (1, 2, 2, 2),
    (2, 1, 1, 4),
    (1, 2, 1, 4),
    (1, 1, 2, 4),
)
ROWS, LENGTH, DOCUMENT = 8, 64, 23  # documents of so many tokens, which rows cut anywhere
VOCABULARY = Vocabulary(256)


def main() -> None:
    """Prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--families', default=','.join(FAMILIES), help='with commas between')
    arguments = parser.parse_args()
    for family in arguments.families.split(','):
        expected_loss, expected = compute(family, (1, 1, 1, 1))
        print(f'{family}, {FAMILIES[family]}: loss {expected_loss:.6f}')
        for shape in MESHES:
            loss, gradient = compute(family, shape)
            far = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
            name = ' × '.join(map(str, shape))
            print(f'  {name}   loss {abs(loss - expected_loss):.1e}   gradient {far:.1e}', flush=True)


def compute(family: str, shape: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Returns the loss and all gradients, one after another, as a mesh of this shape computes them."""
    config = make_config(family)
    objective = objectives.get(config.objective)
    model = Transformer(families.resolve(config, vocab_size=VOCABULARY.vocab_size))
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=devices)
    families.check_layout(model.config, mesh.shape)

    def init(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros((1, 8), jnp.int32))['params']

    def loss(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        total, weight, _ = objective.loss(model, params, batch, config=config, dropout_key=None)
        return total / weight

    shardings = rules.shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
    options = compiler.options(mesh)
    with jax.set_mesh(mesh):
        parameters = jax.jit(
            lambda key: nn.unbox(init(key)), out_shardings=shardings, compiler_options=options
        )(jax.random.key(0))
        gradient = jax.jit(
            jax.value_and_grad(loss), out_shardings=(None, shardings), compiler_options=options
        )
        batch = {
            name: jax.device_put(array, meshes.batch_sharding(mesh, array.shape))
            for name, array in make_batch(config, objective).items()
        }
        value, gradients = gradient(parameters, batch)
    return float(value), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])


def make_config(family: str) -> ConfigDict:
    """Returns a small experiment."""
    config = base.get_config()
    config.objective = FAMILIES[family]
    config.sequence_length = LENGTH
    config.compute_dtype = 'float32'
    config.model.update(family=family, num_layers=2, embed_dim=64, num_heads=4)
    if family == 'llama':
        config.model.num_kv_heads = 2
    return config


def make_batch(config: ConfigDict, objective: ModuleType) -> dict[str, np.ndarray]:
    """Returns a batch of random documents side by side."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, VOCABULARY.vocab_size // 2, ROWS * (LENGTH + 1)).astype(np.int32)
    ids[::DOCUMENT], ids[DOCUMENT - 1 :: DOCUMENT] = VOCABULARY.bos_id, VOCABULARY.eos_id
    seeds = np.arange(ROWS, dtype=np.uint64)
    rows = ids.reshape(ROWS, LENGTH + 1)
    return objective.make_batch(rows, tokenizer=VOCABULARY, config=config, seeds_R=seeds)


if __name__ == '__main__':
    main()
