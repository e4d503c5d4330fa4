"""How much memory a computation took at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import jax

STATUS, CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def reset_peak() -> None:
    """Counts from here on; where the system cannot (other than Linux), from the start of the process."""
    if CLEAR.exists():
        CLEAR.write_text('5')  # Linux: sets the peak of resident memory to what it is now


def peak() -> int:
    """Returns bytes: of the fullest accelerator since its start; on CPU, of the process since the reset."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    on_devices = max((each.get('peak_bytes_in_use', 0) for each in statistics), default=0)
    if on_devices:
        return on_devices
    if STATUS.exists():
        found = re.search(r'VmHWM:\s*(\d+) kB', STATUS.read_text())
        if found:
            return 1024 * int(found[1])
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == 'darwin' else 1024 * usage
