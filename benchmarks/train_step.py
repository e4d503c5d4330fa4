"""The speed of a training step beside the same GPT in PyTorch, in one run on the same machine.

  python -m benchmarks.train_step [--layers=6 --width=384 --heads=6 --length=256 --batch=8 --vocab=8192]
  python -m benchmarks.train_step --preset=gpt2-124m          # for a GPU

Measures Lathe's real training step and PyTorch's (eager and torch.compile), each in float32 and in
bfloat16 (float32 weights, products in bfloat16). They take turns, so that a busy machine disturbs all
alike. The ratio is the median over rounds of PyTorch's compiled float32 time divided by this one's. Each
dtype has a process of its own, because one step's freed memory cuts up what another's would reuse.
MFU counts the model's floating-point operations (`model.flops`) against the best matrix product
that either library reached in the same run and dtype.

Before timing, all start from the same weights, and their losses before and after two updates must agree.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs room on the same GPU

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from configs import base
from model import flops
from model.families import resolve
from model.transformer import Transformer
from objectives import causal
from parallel.host_memory import keep_freed_memory
from training import optimizer as optimizers
from training import state as states
from training.step import make_train_step

try:
    import torch

    from benchmarks import gpt_in_torch
except ImportError:
    sys.exit('This benchmark compares with PyTorch: pip install torch')

SHAPE = {'layers': 6, 'width': 384, 'heads': 6, 'length': 256, 'batch': 8, 'vocab': 8192}
PRESETS = {
    'default': SHAPE | {'dtype': 'both'},
    'gpt2-124m': {'layers': 12, 'width': 768, 'heads': 12, 'length': 1024, 'batch': 16, 'vocab': 50304}
    | {'dtype': 'bfloat16'},
}
# Relative difference of losses: other orders of summation, and roundings to 8 bits of mantissa.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 5e-3}
BASELINE = ('PyTorch compiled', 'float32')
Step = Callable[[], Any]
Steps = dict[tuple[str, str], Step]  # by (name, dtype)


def make_config(arguments: argparse.Namespace, dtype: str) -> ConfigDict:
    """Returns the default experiment in the shape that the arguments give, at a constant learning rate."""
    config = base.get_config()
    config.batch_size, config.sequence_length = arguments.batch, arguments.length
    config.compute_dtype = dtype
    model = config.model
    model.num_layers, model.embed_dim, model.num_heads = arguments.layers, arguments.width, arguments.heads
    model.vocab_size = arguments.vocab
    config.optimizer.schedule, config.optimizer.warmup_steps = 'constant', 0
    return config


def make_batch(arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Returns random tokens, each row one document."""
    shape = (arguments.batch, arguments.length)
    rows = np.random.default_rng(0).integers(4, arguments.vocab, (shape[0], shape[1] + 1), dtype=np.int32)
    return {
        'tokens_BL': rows[:, :-1],
        'targets_BL': np.ascontiguousarray(rows[:, 1:]),
        'weights_BL': np.ones(shape, np.float32),
        'segments_BL': np.ones(shape, np.int32),
        'positions_BL': np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
    }


def make_lathe_step(config: ConfigDict, model: Transformer, batch: dict[str, np.ndarray]) -> Step:
    """Returns a function that makes one step of the training loop's own and returns the loss before it."""
    optimizer = optimizers.make_optimizer(config)
    step = make_train_step(model, causal, config, optimizer, optimizers.make_schedule(config))
    state = jax.jit(lambda: states.initialise(model, optimizer, seed=config.seed, ema=False))()
    device_batch = jax.device_put(batch)
    compiled = jax.jit(step, donate_argnums=0).lower(state, device_batch).compile()

    def advance() -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, device_batch)
        return metrics['loss']

    return advance


def make_steps(arguments: argparse.Namespace, dtype: str) -> tuple[Steps, int]:
    """Returns {(name, dtype): step} for every competitor, and the model's operations of one step."""
    device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        sys.exit('JAX sees a GPU and PyTorch does not; install its CUDA build, or set JAX_PLATFORMS=cpu.')
    batch = make_batch(arguments)
    config = make_config(arguments, dtype)
    model_config = resolve(config, vocab_size=arguments.vocab)
    model = Transformer(model_config)
    params = jax.jit(lambda: states.init_params(model, config.seed))()
    steps = {('Lathe', dtype): make_lathe_step(config, model, batch)}
    peers = [('PyTorch eager', dtype, False), ('PyTorch compiled', dtype, True)]
    if arguments.dtype == 'both' and dtype != BASELINE[1]:
        peers.append((*BASELINE, True))
    for name, kind, compiled in peers:
        peer_config = make_config(arguments, kind)
        shape = resolve(peer_config, vocab_size=arguments.vocab)
        steps[name, kind] = gpt_in_torch.make_step(
            peer_config, shape, params, batch, compiled=compiled, device=device
        )
    return steps, flops.train_flops_per_row(model_config, arguments.length) * len(batch['tokens_BL'])


def check_losses(steps: Steps) -> None:
    """Makes three steps with each and compares the losses with PyTorch's; exits if they differ."""
    losses = {key: [float(step()) for _ in range(3)] for key, step in steps.items()}
    for (name, dtype), values in losses.items():
        if ('PyTorch eager', dtype) not in losses:
            continue
        expected = losses['PyTorch eager', dtype]
        difference = max(abs(a - b) / b for a, b in zip(values, expected, strict=True))
        shown = ' '.join(f'{value:.5f}' for value in values)
        print(f'losses {name}, {dtype}: {shown} (relative difference {difference:.1e})')
        if not difference < TOLERANCE[dtype]:
            sys.exit(f'Losses differ by more than {TOLERANCE[dtype]:g}: not the same computation.')


def make_products(size: int, dtype: str) -> Steps:
    """Returns {(library, dtype): square matrix product}: operands in dtype, sums in float32."""
    device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
    y = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    return {('JAX', dtype): lambda: product(x), ('PyTorch', dtype): lambda: y @ y}


def wait(result: Any) -> None:
    """Returns when the device has computed the result, and everything that was asked of it before."""
    if isinstance(result, torch.Tensor):
        if result.is_cuda:
            torch.cuda.synchronize()
    else:
        jax.block_until_ready(result)


def measure(steps: Steps, repeats: int, calls: int) -> dict[tuple[str, str], list[float]]:
    """Returns seconds of one call, `repeats` of each; every one is the mean of `calls` in a row."""
    seconds = {key: [] for key in steps}
    for _ in range(repeats):
        for key, step in steps.items():
            time.sleep(0.3)  # until the threads of the one before have ceased to spin
            started = time.perf_counter()
            for _ in range(calls):
                result = step()
            wait(result)
            seconds[key].append((time.perf_counter() - started) / calls)
    return seconds


def compare(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Returns {device, peak (FLOP/s), product_size, rows} of every competitor in `dtype`."""
    keep_freed_memory()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    torch.set_float32_matmul_precision('high')  # TensorFloat-32 on GPUs, as is JAX's default
    on_gpu = jax.default_backend() == 'gpu'
    steps, operations = make_steps(arguments, dtype)
    check_losses(steps)
    size = 8192 if on_gpu else 2048
    products = make_products(size, dtype)
    measure(products, 1, 1)
    product_seconds = measure(products, arguments.repeats, 10 if on_gpu else 1)
    peak = max(2 * size**3 / min(times) for times in product_seconds.values())
    seconds = measure(steps, arguments.repeats, 10 if on_gpu else 3)
    baseline = seconds.get(BASELINE, seconds['PyTorch compiled', dtype])
    rows = [
        {
            'name': name,
            'dtype': dtype,
            'seconds': times,
            'tokens_per_second': arguments.batch * arguments.length / min(times),
            'ratio': statistics.median(base / own for base, own in zip(baseline, times, strict=True)),
            'mfu': operations / min(times) / peak,
        }
        for (name, kind), times in seconds.items()
        if kind == dtype
    ]
    device = jax.devices()[0].device_kind if on_gpu else f'{cores} cores'
    return {'device': device, 'peak': peak, 'product_size': size, 'rows': rows}


def main() -> None:
    """Prints the table, and writes it as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--preset', choices=PRESETS, default='default')
    for name in SHAPE:
        parser.add_argument(f'--{name}', type=int)
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'both'))
    parser.add_argument('--repeats', type=int, default=10)
    parser.add_argument('--json', default='', metavar='FILE')
    arguments = parser.parse_args()
    for name, value in PRESETS[arguments.preset].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)

    dtypes = ('float32', 'bfloat16') if arguments.dtype == 'both' else (arguments.dtype,)
    processes = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=processes, max_tasks_per_child=1) as pool:
        results = {dtype: pool.submit(compare, arguments, dtype).result() for dtype in dtypes}

    device = results[dtypes[0]]['device']
    shape = ', '.join(f'{name} {getattr(arguments, name)}' for name in SHAPE)
    table = Table(title=f'Training step on {device}: {shape}')
    for heading in ('', 'dtype', 'best ms', 'median ms', 'tokens/s', 'ratio', 'MFU'):
        table.add_column(heading, justify='left' if heading in ('', 'dtype') else 'right', no_wrap=True)
    for row in (row for result in results.values() for row in result['rows']):
        table.add_row(
            row['name'],
            row['dtype'],
            f'{min(row["seconds"]) * 1e3:.1f}',
            f'{statistics.median(row["seconds"]) * 1e3:.1f}',
            f'{row["tokens_per_second"]:,.0f}',
            f'{row["ratio"]:.2f}',
            f'{row["mfu"]:.0%}',
        )
    console = Console(width=max(Console().width, 100))
    console.print(table)
    baseline = BASELINE[1] if BASELINE[1] in dtypes else dtypes[0]
    console.print(f'ratio: {BASELINE[0]} {baseline} = 1, the median of {arguments.repeats} rounds')
    for dtype, result in results.items():
        size, peak = result['product_size'], result['peak'] / 1e9
        console.print(f'best matrix product of {size}³, {dtype}: {peak:,.0f} GFLOP/s')
    if arguments.json:
        shape = {name: getattr(arguments, name) for name in SHAPE}
        with open(arguments.json, 'w') as file:
            json.dump({'shape': shape, 'results': results}, file, indent=2)


if __name__ == '__main__':
    main()
