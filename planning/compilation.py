"""Steps compiled in processes of their own, several at once, and kept for the next time.

A compiler that fails takes only its process along, and what it prints does not mix with the report.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.errors import UserError
from data.files import write_whole
from planning.topologies import Topology

ROOT = Path(__file__).parents[1]
# What decides a compiled step, beside versions: the source of these, and all keys of a config but these.
SOURCES = (
    *('model/*.py', 'objectives/*.py', 'parallel/*.py'),
    *(
        f'training/{name}.py'
        for name in ('optimizer', 'state', 'step', 'hardware', 'freezing', 'offloading', 'table_rows')
    ),
    *(
        f'planning/{name}.py'
        for name in ('step', 'hlo', 'collectives', 'main_memory', 'operations', 'machine', 'topologies')
    ),
)
NOT_IN_THE_STEP = (
    *('wandb', 'tensorboard', 'profile_steps', 'log_every', 'keep_checkpoints', 'max_skipped_steps'),
    *('eval_every', 'eval_batches', 'checkpoint_every', 'sample_every', 'sample_prompts', 'sample_tokens'),
)
HOST_MEMORY = 3 << 30  # bytes that compiling a step of 7B parameters takes at most, with room


def compile_all(
    configs: Sequence[ConfigDict],
    topology: Topology | None,
    *,
    fresh: bool = False,
    told: Callable[[int, dict[str, Any], bool], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Compiles the steps of experiments for a topology, or for this machine's devices.

    Args:
      configs: experiments, each checked.
      topology: None: the devices that are here.
      fresh: do not look for results that are kept.
      told: called with (index, result, whether it was kept) as each is done.

    Returns:
      Of each {'step': planning.step.Step.to_dict(), 'chip': parallel.chips.Chip's fields}, or {'error': its
      last lines} where the compiler failed for another reason than memory.
    """

    def one(index: int) -> dict[str, Any]:
        path = cache_path(configs[index], topology)
        kept = path.exists() and not fresh
        result = json.loads(path.read_text()) if kept else _in_a_process(configs[index], topology)
        if not kept and 'error' not in result:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(result).encode())
        told(index, result, kept)
        return result

    with ThreadPoolExecutor(max_workers=jobs()) as pool:
        return list(pool.map(one, range(len(configs))))


def jobs() -> int:
    """Returns how many compilers may run at once on this machine: by its cores and free memory."""
    try:
        free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_AVPHYS_PAGES')
    except (ValueError, OSError):
        free = HOST_MEMORY
    return max(1, min(os.cpu_count() or 1, free // HOST_MEMORY))


def cache_path(config: ConfigDict, topology: Topology | None) -> Path:
    """Returns where the result for an experiment is kept: by config, code, versions and devices."""
    digest = hashlib.sha256()
    keys = {key: value for key, value in config.to_dict().items() if key not in NOT_IN_THE_STEP}
    digest.update(json.dumps(keys, sort_keys=True, default=list).encode())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    versions = {}
    for package in ('jax', 'jaxlib', 'flax', 'optax', 'libtpu'):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ''
    flags = [os.environ.get(name, '') for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')]
    here = [platform.node(), os.environ.get('JAX_PLATFORMS', '')]
    digest.update(json.dumps([versions, flags, topology.name if topology else here]).encode())
    return Path.home() / '.cache' / 'lathe' / 'plans' / f'{digest.hexdigest()[:32]}.json'


def describe_machine() -> dict[str, Any]:
    """Returns this machine's {'platform', 'devices', 'chip'}, found by a process of its own."""
    result = _answer({'config': None, 'topology': None}, dict(os.environ))
    if 'error' in result:
        raise RuntimeError(result['error'])
    return result


def _in_a_process(config: ConfigDict, topology: Topology | None) -> dict[str, Any]:
    environment = dict(os.environ)
    if topology is not None:
        environment['JAX_PLATFORMS'] = 'cpu'  # what is compiled for need not be here
    request = {'config': config.to_dict(), 'topology': topology.name if topology else None}
    return _answer(request, environment)


def _answer(request: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, '-m', 'planning.worker'],
        input=json.dumps(request, default=list),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix('error: '))
    if done.returncode or not lines:
        return {'error': '\n'.join(done.stderr.strip().splitlines()[-12:])}
    return json.loads(lines[-1])
