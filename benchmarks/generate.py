"""Tokens a second of generation beside transformers, on the same weights, in one run.

  python -m benchmarks.generate --checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf [--prompt=128 --new=128]

Both decode greedily with a key/value cache: Lathe in float32 and in bfloat16, transformers in float32. They
take turns, so that a busy machine disturbs all alike; the ratio, prompts included, is the median over rounds.
One token reads every weight once, so the share of the memory's bandwidth, measured in the same run, says how
far from the limit a batch of one is, from the second token on. Before timing, the tokens of both in float32
must be the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from model.decoding import Decoding
from model.generation import generate
from model.transformer import Transformer
from parallel.host_memory import keep_freed_memory
from training.run import Run, open_run

try:
    import torch
    import transformers
except ImportError:
    sys.exit('This benchmark compares with transformers: make parity installs it.')


def make_lathe(opened: Run, prompts: np.ndarray, dtype: str) -> Callable[[int], np.ndarray]:
    """Returns a function that continues `prompts` [B, P] by so many tokens, computed in `dtype`."""
    model = Transformer(dataclasses.replace(opened.transformer.config, compute_dtype=dtype))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), opened.params)
    rows = prompts.tolist()

    def advance(new: int) -> np.ndarray:
        decoding = Decoding(max_new_tokens=new, temperature=0)
        return generate(model, params, rows, decoding, key=jax.random.key(0), eos_id=-1, pad_id=0)

    return advance


def make_transformers(path: Path, prompts: np.ndarray) -> Callable[[int], np.ndarray]:
    """Returns the same in transformers, float32."""
    where = {'gguf_file': path.name} if path.suffix == '.gguf' else {}
    directory = path.parent if where else path
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **where)
    model.eval()
    tokens = torch.from_numpy(prompts.astype(np.int64))
    mask = torch.ones_like(tokens)
    options = {'do_sample': False, 'eos_token_id': None, 'pad_token_id': 0}

    def advance(new: int) -> np.ndarray:
        with torch.no_grad():
            output = model.generate(tokens, attention_mask=mask, max_new_tokens=new, **options)  # pyright: ignore
        return output[:, prompts.shape[1] :].numpy()

    return advance


def measure_bandwidth(repeats: int = 10) -> float:
    """Returns the bytes a second at which the sum of a gigabyte of float32 reads it, at best."""
    x = jnp.ones((1 << 14, 1 << 14), jnp.float32)
    total = jax.jit(lambda x: jnp.sum(x, axis=1))
    total(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        total(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return x.nbytes / min(seconds)


def measure(advance: Callable[[int], np.ndarray], new: int) -> float:
    """Returns the seconds in which `new` tokens are written after each prompt."""
    started = time.perf_counter()
    advance(new)
    return time.perf_counter() - started


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--checkpoint', required=True, type=Path)
    parser.add_argument('--prompt', type=int, default=128)
    parser.add_argument('--new', type=int, default=128)
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--repeats', type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    bandwidth = measure_bandwidth()
    opened = open_run(str(arguments.checkpoint))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(opened.params))

    table = Table(title=f'{arguments.checkpoint.name}: prompt {arguments.prompt}, {arguments.new} new tokens')
    for heading in ('', 'dtype', 'batch', 'best s', 'ms a step', 'tokens/s', 'ratio', 'of bandwidth'):
        table.add_column(heading, justify='left' if heading in ('', 'dtype') else 'right', no_wrap=True)
    for batch in arguments.batches:
        rng = np.random.default_rng(0)
        prompts = rng.integers(100, opened.tokenizer.vocab_size, (batch, arguments.prompt), dtype=np.int32)
        rivals = {
            ('transformers', 'float32'): make_transformers(arguments.checkpoint, prompts),
            ('Lathe', 'float32'): make_lathe(opened, prompts, 'float32'),
            ('Lathe', 'bfloat16'): make_lathe(opened, prompts, 'bfloat16'),
        }
        made = {key: advance(arguments.new) for key, advance in rivals.items()}
        same = np.mean(made['transformers', 'float32'] == made['Lathe', 'float32'])
        if same < 1:
            sys.exit(f'Only {same:.1%} of the tokens are the same: not the same computation.')
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in rivals}
        first: dict[tuple[str, str], list[float]] = {key: [] for key in rivals}
        for _ in range(arguments.repeats):
            for key, advance in rivals.items():
                seconds[key].append(measure(advance, arguments.new))
                first[key].append(measure(advance, 1))
        baseline = seconds['transformers', 'float32']
        for (name, dtype), times in seconds.items():
            ratio = statistics.median(base / own for base, own in zip(baseline, times, strict=True))
            following = (min(times) - min(first[name, dtype])) / (arguments.new - 1)
            read = num_params * jnp.dtype(dtype).itemsize / following
            table.add_row(
                name,
                dtype,
                str(batch),
                f'{min(times):.2f}',
                f'{1e3 * following:.1f}',
                f'{batch * arguments.new / min(times):,.1f}',
                f'{ratio:.2f}',
                f'{read / bandwidth:.0%}' if batch == 1 else '',
            )
    console = Console(width=max(Console().width, 100))
    console.print(table)
    console.print(
        f'ratio: transformers = 1, the median of {arguments.repeats} rounds; steps: after the first token'
    )
    console.print(f'bandwidth: {bandwidth / 1e9:.1f} GB/s, the best sum of 1 GB; weights: {num_params:,}')


if __name__ == '__main__':
    main()
