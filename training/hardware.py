"""How fast the devices could be at best: the denominator of MFU."""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one device as JAX counts them, matched against the start of `device_kind`.
# Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e system pages); NVIDIA datasheets of A100, H100 (SXM
# where the name says nothing else) and H200 (dense, without sparsity).
PEAK_BFLOAT16 = (
    ('TPU v4', 275e12),
    ('TPU v5 lite', 197e12),
    ('TPU v5e', 197e12),
    ('TPU v5p', 459e12),
    ('TPU v5', 459e12),
    ('TPU v6', 918e12),
    ('NVIDIA A100', 312e12),
    ('NVIDIA H100 PCIe', 756e12),
    ('NVIDIA H100 NVL', 835e12),
    ('NVIDIA H100', 989e12),
    ('NVIDIA H200', 989e12),
)


def peak_flops(dtype: str) -> float | None:
    """Returns the peak FLOP/s of all devices together, or None for an unknown chip.

    Of a GPU or TPU it is the bfloat16 peak, whatever `dtype`. A CPU has no useful datasheet: there it is what
    a large matrix product reaches when first asked, in `dtype`; None for several processes, which may share
    the cores.
    """
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == 'cpu':
        return measured_matmul_flops(dtype) if jax.process_count() == 1 else None
    for name, peak in PEAK_BFLOAT16:
        if kind.startswith(name):
            return peak * jax.device_count()
    return None


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
