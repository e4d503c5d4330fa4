"""Memory of the host, which is also XLA's on CPU."""

from __future__ import annotations

import ctypes

# Names of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1


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
    # One arena: glibc takes the large blocks of every other from the system, whatever the threshold.
    for option, value in ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, LARGEST), (M_ARENA_MAX, 1)):
        mallopt(option, value)
