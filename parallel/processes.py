"""Start of several processes that work as one, and the little they must agree on."""

from __future__ import annotations

import os

import jax

from configs.errors import UserError


def start() -> None:
    """Joins the other processes of this run, if there are any; must precede all other use of JAX.

    JAX_COORDINATOR_ADDRESS=HOST:PORT with JAX_NUM_PROCESSES and JAX_PROCESS_ID starts any group of
    processes. On a TPU pod or under Slurm, LATHE_DISTRIBUTED=1 is enough: JAX finds the others.
    """
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    values = [os.environ.get(name) for name in names]
    if all(values):
        address, count, index = values
        jax.distributed.initialize(address, int(count), int(index))  # type: ignore[arg-type]
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
