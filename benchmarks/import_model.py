"""Time and memory of opening a large published model, beside reading its file from disk.

  python -m benchmarks.import_model [--gigabytes=3 --devices 1 8 --rounds=3]

Writes a LLaMA of random float32 weights in Hugging Face's format. Then processes take turns: one reads the
file into new memory, the others open it, each on its number of (simulated) devices; before each the system
drops what it holds of the file. Reading has a process of its own because memory that a process gave back a
moment ago comes several times faster than what a new one asks for, on a virtual machine above all. The ratio
is the median over rounds.

The peak is of memory that belongs to the process: pages of the file, which is mapped,
belong to the system, which drops them when it needs room; they are counted in the column beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from model.huggingface import weight_map
from model.tensor_files import WEIGHTS

VALUES = {
    'model_type': 'llama',
    'architectures': ['LlamaForCausalLM'],
    'hidden_size': 2048,
    'intermediate_size': 5632,
    'num_attention_heads': 32,
    'num_key_value_heads': 4,
    'max_position_embeddings': 2048,
    'vocab_size': 32000,
    'rms_norm_eps': 1e-5,
    'tie_word_embeddings': True,
}
GIGABYTE = 1e9


def write_model(directory: Path, size: float) -> None:
    """Writes the model with as many layers as fill `size` bytes, at least one."""
    width, hidden, head = VALUES['hidden_size'], VALUES['intermediate_size'], 64
    kv = VALUES['num_key_value_heads'] * head
    shapes = {
        'self_attn.q_proj': (width, width),
        'self_attn.k_proj': (kv, width),
        'self_attn.v_proj': (kv, width),
        'self_attn.o_proj': (width, width),
        'mlp.gate_proj': (hidden, width),
        'mlp.up_proj': (hidden, width),
        'mlp.down_proj': (width, hidden),
        'input_layernorm': (width,),
        'post_attention_layernorm': (width,),
    }
    table = VALUES['vocab_size'] * width
    layers = max(1, round((size / 4 - table) / sum(map(np.prod, shapes.values()))))
    names = {
        f'model.layers.{n}.{name}.weight': shape for n in range(layers) for name, shape in shapes.items()
    }
    names |= {'model.embed_tokens.weight': (VALUES['vocab_size'], width), 'model.norm.weight': (width,)}
    rng = np.random.default_rng(0)
    save_file(
        {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in names.items()},
        directory / WEIGHTS,
    )
    (directory / 'config.json').write_text(json.dumps(VALUES | {'num_hidden_layers': layers}))


class Peak:
    """The most memory of this process while it is entered: its own, and with the pages of mapped files."""

    own = whole = 0

    def __enter__(self) -> Peak:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.01):
            memory = process.memory_info()
            self.own = max(self.own, memory.rss - memory.shared)
            self.whole = max(self.whole, memory.rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def open_model(directory: Path) -> None:
    """Opens the model in this process, and prints seconds and peaks as JSON."""
    import jax

    from configs import base
    from model import families, huggingface, tensor_files
    from model.transformer import Transformer
    from parallel.host_memory import keep_freed_memory
    from parallel.mesh import make_mesh
    from training.building import abstract_params

    keep_freed_memory()
    config = base.get_config()
    values = json.loads((directory / 'config.json').read_text())
    config.model.update(huggingface.model_keys(values, 'config.json'))
    model = Transformer(families.resolve(config, vocab_size=values['vocab_size']))
    mesh = make_mesh({'data': 1, 'fsdp': -1, 'tensor': 1, 'context': 1})
    abstract = abstract_params(model, mesh)
    with Peak() as peak:
        started = time.perf_counter()
        files = tensor_files.TensorFiles(directory)
        params = jax.block_until_ready(tensor_files.load(files, abstract, weight_map(values, files.names())))
        seconds = time.perf_counter() - started
    shards = [shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards]
    print(json.dumps({'seconds': seconds, 'own': peak.own, 'whole': peak.whole, 'held': sum(shards)}))


def forget(path: Path) -> None:
    """Lets the system drop what it keeps of a file in memory."""
    with open(path, 'rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_file(directory: Path) -> None:
    """Reads the file into new memory, and prints the seconds as JSON."""
    path = directory / WEIGHTS
    started = time.perf_counter()
    buffer = np.empty(path.stat().st_size, np.uint8)
    with open(path, 'rb', buffering=0) as file:
        done = 0
        while count := file.readinto(buffer[done:].data):
            done += count
    print(json.dumps({'seconds': time.perf_counter() - started}))


def run_child(directory: Path, devices: int) -> dict[str, float]:
    """Returns what a new process found that opened the model on `devices`, or, without any, read the file."""
    forget(directory / WEIGHTS)
    environment = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'}
    command = [
        sys.executable,
        '-m',
        'benchmarks.import_model',
        f'--child={directory}',
        '--devices',
        str(devices),
    ]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--gigabytes', type=float, default=3)
    parser.add_argument('--devices', type=int, nargs='+', default=[1, 8])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--child', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        (open_model if arguments.devices[0] else read_file)(arguments.child)
        return
    directory = Path(tempfile.mkdtemp(prefix='lathe-import-'))
    try:
        write_model(directory, arguments.gigabytes * GIGABYTE)
        size = (directory / WEIGHTS).stat().st_size
        found: dict[int, list[dict[str, float]]] = {devices: [] for devices in [0, *arguments.devices]}
        for _ in range(arguments.rounds):
            for devices, rounds in found.items():
                rounds.append(run_child(directory, devices))
    finally:
        shutil.rmtree(directory)
    reading = [one['seconds'] for one in found.pop(0)]
    title = f'Opening {size / GIGABYTE:.2f} GB; reading the file: {statistics.median(reading):.2f} s'
    table = Table(title=title)
    for heading in ('devices', 's', 'of reading', 'parameters GB', 'peak GB', 'with the file GB'):
        table.add_column(heading, justify='right')
    for devices, rounds in found.items():
        seconds = [one['seconds'] for one in rounds]
        ratio = statistics.median(own / base for own, base in zip(seconds, reading, strict=True))
        sizes = [f'{max(one[name] for one in rounds) / GIGABYTE:.2f}' for name in ('held', 'own', 'whole')]
        table.add_row(str(devices), f'{statistics.median(seconds):.2f}', f'{ratio:.2f}×', *sizes)
    Console(width=max(Console().width, 100)).print(table)


if __name__ == '__main__':
    main()
