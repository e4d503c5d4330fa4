"""Start of JAX: several processes that work as one, and compiled programs kept from run to run."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from configs.errors import UserError
from parallel.host_memory import keep_freed_memory


def start() -> None:
    """Joins the other processes of this run, if there are any; must precede all other use of JAX.

    Programs that took long to compile are kept in JAX_COMPILATION_CACHE_DIR (default: ~/.cache/lathe).

    JAX_COORDINATOR_ADDRESS=HOST:PORT with JAX_NUM_PROCESSES and JAX_PROCESS_ID starts any group of
    processes. On a TPU pod or under Slurm, LATHE_DISTRIBUTED=1 is enough: JAX finds the others.
    """
    keep_freed_memory()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_dir', str(Path.home() / '.cache' / 'lathe'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    values = [os.environ.get(name) for name in names]
    if all(values):
        address, count, index = map(str, values)
        if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
            raise UserError(
                f'JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={index} must be a number of processes and '
                'one of 0, 1, … below it.'
            )
        jax.distributed.initialize(address, int(count), int(index))
    elif any(values):
        missing = ', '.join(name for name, value in zip(names, values, strict=True) if not value)
        raise UserError(
            f'{missing} is not set, though others of {", ".join(names)} are; set all three or none.'
        )
    elif os.environ.get('LATHE_DISTRIBUTED') == '1':
        jax.distributed.initialize()


def is_main() -> bool:
    """Whether this is the one process that writes logs."""
    return jax.process_index() == 0
