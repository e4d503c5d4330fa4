"""Memory, time and checkpoints of fine-tuning with low-rank adapters, beside fine-tuning all parameters.

  python -m benchmarks.lora --checkpoint=SmolLM2-135M-Instruct.Q4_1.gguf [--batch_size=2 --length=256]

Each way trains in a process of its own, from the same model, on the same random tokens. Memory is what the
compiled step needs (arguments and temporaries, from XLA's own analysis), and the most that the process had
of its own while it made steps. A checkpoint is all that a run keeps of a step, optimizer state included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.import_model import Peak

WAYS = {
    'all parameters': {},
    'LoRA, query and value': {'lora.rank': 8},
    'LoRA, all kernels': {'lora.rank': 8, 'lora.targets': ('blocks/.*kernel$',)},
}
MEGABYTE = 1e6


def measure(way: str, checkpoint: str, batch_size: int, length: int, steps: int) -> dict[str, float]:
    """Trains in this process and returns megabytes, seconds and numbers of parameters."""
    import jax

    import objectives
    from configs import base
    from parallel import processes
    from parallel.mesh import make_mesh
    from training import beginning, freezing
    from training import state as states
    from training.building import build_model
    from training.checkpoint import Checkpoints
    from training.console import Log
    from training.optimizer import make_optimizer, make_schedule
    from training.step import make_train_step

    processes.start()
    config = base.get_config()
    config.initial_checkpoint, config.batch_size, config.sequence_length = checkpoint, batch_size, length
    config.update_from_flattened_dict(WAYS[way])
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    begins = beginning.find(config, Path('nowhere'), mesh)
    assert begins.tokenizer is not None
    model, optimizer = build_model(config, begins.tokenizer, mesh), make_optimizer(config)
    abstract = states.abstract_state(
        model, optimizer, mesh, seed=0, ema=False, learns=freezing.learnt(config)
    )
    state, _ = begins.first_state(model, optimizer, abstract, config, begins.tokenizer, Log(None, quiet=True))
    causal = objectives.get('causal')
    rows = np.random.default_rng(0).integers(3, 10_000, (batch_size, length + 1)).astype(np.int32)
    batch = causal.make_batch(rows, tokenizer=begins.tokenizer)
    step = make_train_step(model, causal, config, optimizer, make_schedule(config))
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    needs = compiled.memory_analysis()
    seconds = []
    with Peak() as peak:
        for _ in range(steps):
            started = time.perf_counter()
            state, metrics = compiled(state, batch)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(Path(directory))
        checkpoints.save(1, beginning.kept(state, config), jax.numpy.zeros((1, 1), int), {})
        checkpoints.close()
        written = sum(path.stat().st_size for path in Path(directory).rglob('*') if path.is_file())
    assert needs is not None, 'the compiler says what a step needs'
    return {
        'learnt': freezing.size(state.params),
        'arguments': needs.argument_size_in_bytes / MEGABYTE,
        'temporaries': needs.temp_size_in_bytes / MEGABYTE,
        'process': peak.own / MEGABYTE,
        'checkpoint': written / MEGABYTE,
        'seconds': statistics.median(seconds[1:]),
    }


def main() -> None:
    """Measures each way in its process and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--checkpoint', required=True, help='what train.py takes as initial_checkpoint')
    parser.add_argument('--batch_size', type=int, default=2)
    parser.add_argument('--length', type=int, default=256)
    parser.add_argument('--steps', type=int, default=6)
    parser.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(**vars(arguments))))
        return
    table = Table(
        title=f'{Path(arguments.checkpoint).name}, {arguments.batch_size} × {arguments.length} tokens'
    )
    for column in (
        'learnt',
        'parameters',
        'step needs MB',
        'process MB',
        'checkpoint MB',
        's a step',
        'ratio',
    ):
        table.add_column(column, justify='left' if column == 'learnt' else 'right')
    first = None
    for way in WAYS:
        command = [sys.executable, '-m', 'benchmarks.lora', *sys.argv[1:], f'--way={way}']
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found
        table.add_row(
            way,
            f'{found["learnt"]:,}',
            f'{found["arguments"] + found["temporaries"]:,.0f}',
            f'{found["process"]:,.0f}',
            f'{found["checkpoint"]:,.1f}',
            f'{found["seconds"]:.2f}',
            f'{first["seconds"] / found["seconds"]:.2f}',
        )
    Console(width=110).print(table)


if __name__ == '__main__':
    main()
