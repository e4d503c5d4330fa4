"""Memory of the host, which is also XLA's on CPU."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

# Names of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
OVERCOMMIT, STRICT = Path('/proc/sys/vm/overcommit_memory'), '2'  # proc(5)


def keep_freed_memory() -> None:
    """Makes the C library keep memory that is freed for what is allocated next, in huge pages.

    XLA's CPU back end allocates a step's intermediate arrays anew in every step. By default they
    go back to the system after each, which clears every page before it gives it out again: a tenth
    of the step. The process stays as large as it once was. Huge pages, where the system has them for
    those who ask, let parameters be read an eighth faster while texts are written (docs/log.md).
    Call it before JAX starts its threads; without glibc it does nothing.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap; any number would be at most 2 GB
    except (OSError, AttributeError):
        return
    libc.mallopt(M_MMAP_MAX, 0)  # no block outside the heap, for freeing that returns it
    libc.mallopt(M_ARENA_MAX, 1)  # one heap: those of other threads take their large blocks from the system
    _prefer_huge_pages(libc)


def _prefer_huge_pages(libc: ctypes.CDLL) -> None:
    """Asks for huge pages in as much of the heap as half the machine's memory.

    A block is allocated, which only extends the heap's addresses, and freed: they stay part of the heap, with
    what the system was told of them. Not where the system promises no more memory than it has: other
    processes would lack what is only reserved here.
    """
    if OVERCOMMIT.exists() and OVERCOMMIT.read_text().strip() == STRICT:
        return
    size = os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE // 2
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.free.argtypes = [ctypes.c_void_p]
    block = libc.malloc(size)
    if block is None:
        return
    start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(start, size - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
    libc.free(block)
