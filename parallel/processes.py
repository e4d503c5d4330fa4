"""Start of JAX: several processes that work as one, and compiled programs kept from run to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import jax
from jax._src import distributed

from configs.errors import UserError
from parallel.host_memory import keep_freed_memory
from parallel.peers import Peers
from parallel.progress import Progress, watch


def start(progress: Progress | None = None) -> Peers:
    """Joins the other processes of this run, if there are any; must precede all other use of JAX.

    JAX_COORDINATOR_ADDRESS=HOST:PORT with JAX_NUM_PROCESSES and JAX_PROCESS_ID starts any group of processes;
    in an indexed job of Kubernetes, JOB_COMPLETION_INDEX stands for the last. Under Slurm's srun, and on TPU
    pods, LATHE_DISTRIBUTED=1 is enough: JAX finds the others.

    Programs that took long to compile are kept in JAX_COMPILATION_CACHE_DIR (default: ~/.cache/lathe).

    `progress` is what the loop, if there is one, says of itself; a step that hangs is reported.

    Returns the connections with the others, through which each learns of the end of any. Raises UserError
    when the variables contradict each other, or not all processes come.
    """
    keep_freed_memory()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        jax.config.update('jax_compilation_cache_dir', str(Path.home() / '.cache' / 'lathe'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
    if 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
        # Simulated devices wait for each other in threads, of which XLA makes no more than there are
        # devices; one may take part in two collective operations at once (docs/log.md).
        os.environ.setdefault('NPROC', '32')
    progress = progress or Progress()
    watch(progress)
    address, count, index = cluster(os.environ) or (None, 1, None)
    if count == 1 or jax.distributed.is_initialized():
        return Peers(0, [], progress)
    try:
        jax.distributed.initialize(address, count, index)
    except (RuntimeError, ValueError) as error:
        raise UserError(f'the processes of this run did not find each other: {error}') from error
    state = distributed.global_state  # where JAX keeps its key-value store; there is no public name for it
    return Peers.join(
        state.process_id, state.num_processes, str(state.coordinator_address), state.client, progress
    )


def cluster(environment: Mapping[str, str]) -> tuple[str | None, int | None, int | None] | None:
    """Returns HOST:PORT of process 0, the number of processes and this one's; None for a single process.

    Each is None where JAX is to find it.
    """
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    values = [environment.get(name) for name in names]
    if any(values[:2]):
        values[2] = values[2] or environment.get('JOB_COMPLETION_INDEX')
    if all(values):
        address, count, index = map(str, values)
        if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
            raise UserError(
                f'JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={index} must be a number of processes and '
                'one of 0, 1, … below it.'
            )
        if not address.rpartition(':')[2].isdigit():
            raise UserError(f'JAX_COORDINATOR_ADDRESS={address} must be HOST:PORT of process 0.')
        return address, int(count), int(index)
    if any(values):
        missing = ', '.join(name for name, value in zip(names, values, strict=True) if not value)
        raise UserError(
            f'{missing} is not set, though others of {", ".join(names)} are; set all three or none.'
        )
    if environment.get('LATHE_DISTRIBUTED') == '1' or int(environment.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
        return None, None, None
    return None


def is_main() -> bool:
    """Whether this is the one process that writes logs."""
    return jax.process_index() == 0
