"""Predicted against measured step time on this machine's CPU.

  python -m benchmarks.plan                                    one device, two shapes: the bound and the step
  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.plan --meshes
                                                               the order of three meshes, and as measured

The prediction is a lower bound, so that measured / predicted is at least 1. Peaks are measured at the start
and at the end, and the higher ones count, since a shared machine may be slower in between.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import jax
import numpy as np

import objectives
from configs import gpt2, llama
from model.transformer import Transformer
from parallel import compiler
from parallel import mesh as meshes
from parallel.chips import Chip
from parallel.host_memory import keep_freed_memory
from planning import machine, step
from planning.roofline import roofline
from training import state as states
from training.optimizer import make_optimizer, make_schedule
from training.step import make_train_step

MESHES = ((8, 1, 1, 1), (1, 8, 1, 1), (1, 2, 4, 1))


def shapes() -> dict:
    """Returns two experiments that take under a second a step on two cores."""
    small, deep = gpt2.get_config('small'), llama.get_config('60m')
    for config in (small, deep):
        config.grad_accumulation = 1
        config.model.dropout_rate = 0.0
        config.mesh.data, config.mesh.fsdp = 1, 1
        config.compute_dtype = 'float32'
        config.tokenizer.vocab_size = 8192
    small.update_from_flattened_dict({'model.num_layers': 4, 'model.embed_dim': 384, 'model.num_heads': 6})
    small.update_from_flattened_dict({'batch_size': 8, 'sequence_length': 256})
    deep.update_from_flattened_dict({'model.num_layers': 4, 'batch_size': 8, 'sequence_length': 128})
    return {'GPT-2, width 384, length 256': small, 'LLaMA, width 512, length 128': deep}


def measure(config, rounds: int) -> float:
    """Returns the least seconds of a real step, of `rounds`."""
    mesh = meshes.make_mesh(config.mesh)
    model, optimizer = Transformer(step.model_config(config, 'cpu')), make_optimizer(config)
    objective = objectives.get(config.objective)
    abstract = states.abstract_state(model, optimizer, mesh, seed=0, ema=False)
    shapes = step.abstract_batch(config, objective, step.vocabulary(config), mesh)
    with jax.set_mesh(mesh):
        state = states.create(model, optimizer, abstract, seed=0)
        random = np.random.default_rng(0)
        rows = random.integers(4, 8000, (config.batch_size, config.sequence_length + 1)).astype(np.int32)
        made = objective.make_batch(rows, tokenizer=step.vocabulary(config), config=config, seeds_R=None)
        batch = {name: jax.device_put(array, shapes[name].sharding) for name, array in made.items()}
        function = make_train_step(model, objective, config, optimizer, make_schedule(config))
        train_step = jax.jit(function, donate_argnums=0, compiler_options=compiler.options(mesh))
        best = float('inf')
        for _ in range(rounds + 1):
            started = time.perf_counter()
            state, metrics = train_step(state, batch)
            jax.block_until_ready(metrics)
            best = min(best, time.perf_counter() - started)
    return best


def best_of(one: Chip, other: Chip) -> Chip:
    """Returns the higher of two measurements of each peak."""
    names = ('flops', 'memory_bandwidth', 'link_bandwidth')
    return dataclasses.replace(one, **{name: max(getattr(one, name), getattr(other, name)) for name in names})


def main() -> None:
    """Prints a line for each shape, or each mesh."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--meshes', action='store_true')
    parser.add_argument('--rounds', type=int, default=8)
    options = parser.parse_args()
    configs = shapes()
    if options.meshes:
        name, config = next(iter(configs.items()))
        configs = {}
        for sizes in MESHES:
            one = config.copy_and_resolve_references()
            one.model.num_heads = 8
            for axis, size in zip(meshes.AXES, sizes, strict=True):
                one.mesh[axis] = size
            configs[f'{name}, mesh {sizes}'] = one
    before = machine.chip('float32')
    lines = []
    for name, config in configs.items():
        planned = step.compile_step(config, jax.devices(), 'cpu')
        lines.append((name, planned, measure(config, options.rounds)))
    chip = best_of(before, machine.chip('float32'))
    devices = jax.device_count()
    print(f'{devices * chip.flops / 1e9:.0f} GFLOP/s, {devices * chip.memory_bandwidth / 1e9:.1f} GB/s')
    for name, planned, measured in lines:
        roof = roofline(planned, chip)
        print(
            f'{name}: at least {roof.seconds * 1e3:.0f} ms, bound by {roof.bound_by}; without overlap '
            f'{roof.without_overlap * 1e3:.0f} ms; measured {measured * 1e3:.0f} ms; '
            f'ratio {measured / roof.seconds:.2f}'
        )


if __name__ == '__main__':
    main()
