"""How fast the devices could be at best: the denominator of MFU."""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp

from parallel import chips


def peak_flops(dtype: str) -> float | None:
    """Returns the peak FLOP/s of all devices together, or None for an unknown chip.

    Of a GPU or TPU it is the bfloat16 peak, whatever `dtype`. A CPU has no useful datasheet: there it is what
    a large matrix product reaches when first asked, in `dtype`; None for several processes, which may share
    the cores.
    """
    if jax.default_backend() == 'cpu':
        return measured_matmul_flops(dtype) if jax.process_count() == 1 else None
    chip = chips.of_kind(jax.devices()[0].device_kind)
    return chip.flops * jax.device_count() if chip else None


@functools.cache
def measured_matmul_flops(dtype: str, size: int = 1536, repeats: int = 10) -> float:
    """Returns the best FLOP/s of `repeats` square matrix products of `size` on one device.

    It is measured once a process. Simulated devices share the cores of one, so its peak is that of all.
    """
    with jax.set_mesh(jax.make_mesh((1,), ('device',), devices=jax.local_devices()[:1])):
        x = jnp.ones((size, size), dtype)
        product = jax.jit(jnp.matmul).lower(x, x).compile()
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
