"""This machine's devices: their chip, from a table or, of a CPU, measured."""

from __future__ import annotations

import os
import time

import jax
import numpy as np

from configs.errors import UserError
from parallel import chips
from parallel.chips import Chip
from training.hardware import measured_matmul_flops


def chip(dtype: str) -> Chip:
    """Returns what one of this machine's devices can do at best; UserError for an accelerator in no table.

    Simulated CPU devices share cores, memory and its bandwidth, and get equal parts of them; what they send
    each other goes through that memory.
    """
    device, count = jax.devices()[0], jax.device_count()
    if jax.default_backend() != 'cpu':
        found = chips.of_kind(device.device_kind)
        if found is None:
            raise UserError(
                f'nothing is known of {device.device_kind!r}; add it to parallel/chips.py, or plan for a '
                '--topology.'
            )
        return found
    bandwidth = memory_bandwidth() / count
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // count
    flops = measured_matmul_flops(dtype, repeats=20) / count
    return Chip('CPU, measured', flops, memory, bandwidth, bandwidth, 0, source='measured now')


def memory_bandwidth(megabytes: int = 256, repeats: int = 8) -> float:
    """Returns the best bytes a second of `repeats` sums over more memory than caches hold, by all cores."""
    x = jax.numpy.ones((megabytes << 18,), np.float32)
    total = jax.jit(lambda x: x.sum())
    total(x).block_until_ready()
    best = float('inf')
    for _ in range(repeats):
        start = time.perf_counter()
        total(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return x.nbytes / best
