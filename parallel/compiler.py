"""What XLA's compilers are told, by platform, and why."""

from __future__ import annotations

import os

from jax.sharding import Mesh

OPTIONS: dict[str, dict[str, int | bool]] = {
    # LLVM takes twice as long at its level 3, most of it over random numbers, and the code is no faster
    # (docs/log.md).
    'cpu': {'xla_backend_optimization_level': 1},
    # Collectives start early and run beside computation; NVIDIA's images set it for every program
    # (docs.nvidia.com/jax-toolbox, Environment Variables).
    'gpu': {'xla_gpu_enable_latency_hiding_scheduler': True},
}


def options(mesh: Mesh) -> dict[str, int | bool]:
    """Returns the compiler_options of jax.jit for the devices of a mesh.

    What XLA_FLAGS say of an option goes before what is said here.
    """
    said = os.environ.get('XLA_FLAGS', '')
    platform = mesh.devices.flat[0].platform
    return {name: value for name, value in OPTIONS.get(platform, {}).items() if name not in said}
