"""What XLA's compilers are told, by device, and why.

What the lines for TPUs gain was seen in the compiled step of LLaMA-2 7B: how many of the bytes on the wire
are sent while nothing is computed (docs/planning.md).
"""

from __future__ import annotations

import os

from jax.sharding import Mesh

from parallel import chips

Options = dict[str, int | bool]

# SparseCores send what is gathered and summed while tensor cores compute. By default these do it and wait: 40
# of 40 GB are sent alone on v5p and v6e, with this less than 1. JAX's tests of sharded layers set the first
# three. Ironwood does so by itself, v5e has no SparseCores, and for v4 the compiler passes over it.
SPARSE_CORES: Options = {
    'xla_tpu_enable_sparse_core_collective_offload_all_gather': True,
    'xla_tpu_enable_sparse_core_collective_offload_2d_all_gather': True,
    'xla_tpu_enable_sparse_core_collective_offload_reduce_scatter': True,
    'xla_tpu_enable_sparse_core_collective_offload_all_reduce': True,
}

# By the name of a chip, or of its platform.
OPTIONS: dict[str, Options] = {
    # LLVM takes twice as long at its level 3, most of it over random numbers, and the code is no faster
    # (docs/log.md).
    'cpu': {'xla_backend_optimization_level': 1},
    # Collectives start early and run beside computation; NVIDIA's images set it for every program
    # (docs.nvidia.com/jax-toolbox, Environment Variables).
    'gpu': {'xla_gpu_enable_latency_hiding_scheduler': True},
    # Gathers start early, as by themselves on v5e: 14 of 40 GB alone, which are the sums.
    'TPU v4': {'xla_enable_async_all_gather': True},
    'TPU v5p': SPARSE_CORES,
    'TPU v6e': SPARSE_CORES,
}


def options(mesh: Mesh) -> Options:
    """Returns the compiler_options of jax.jit for the devices of a mesh.

    What XLA_FLAGS and LIBTPU_INIT_ARGS say of an option goes before what is said here.
    """
    said = os.environ.get('XLA_FLAGS', '') + os.environ.get('LIBTPU_INIT_ARGS', '')
    device = mesh.devices.flat[0]
    chip = chips.of_kind(device.device_kind)
    told = OPTIONS.get(chip.name if chip else '', OPTIONS.get(device.platform, {}))
    return {name: value for name, value in told.items() if name not in said}
