"""What XLA's compilers are told, by platform, and why."""

from __future__ import annotations

import os

import jax
from jax.sharding import Mesh

OPTIONS: dict[str, dict[str, int]] = {
    # LLVM takes twice as long at its level 3, most of it over random numbers, and the code is no faster
    # (docs/log.md).
    'cpu': {'xla_backend_optimization_level': 1},
}


def options(mesh: Mesh | None = None) -> dict[str, int]:
    """Returns the compiler_options of jax.jit for the devices of a mesh, by default this process's.

    What XLA_FLAGS say of an option goes before what is said here.
    """
    devices = jax.devices() if mesh is None else mesh.devices.flat
    said = os.environ.get('XLA_FLAGS', '')
    return {name: value for name, value in OPTIONS.get(devices[0].platform, {}).items() if name not in said}
