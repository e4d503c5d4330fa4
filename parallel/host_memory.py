"""Memory of the host, which is also XLA's on CPU."""

from __future__ import annotations

import ctypes

# Names of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Makes the C library keep the memory that is freed, for the next that asks.

    XLA's CPU back end allocates a step's intermediate arrays anew in every step. By default they
    go back to the system after each, which clears every page before it gives it out again: a tenth
    of the step. The process stays as large as it once was. Call it before JAX starts its threads;
    without glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap; any number would be at most 2 GB
    mallopt(M_MMAP_MAX, 0)  # no block outside the heap, for freeing that returns it
    mallopt(M_ARENA_MAX, 1)  # one heap: those of other threads take their large blocks from the system
