import re
import subprocess
import sys
from pathlib import Path

import pytest

from parallel import host_memory

ENABLED = Path('/sys/kernel/mm/transparent_hugepage/enabled')
SCRIPT = """
import ctypes
from parallel.host_memory import keep_freed_memory
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
block = libc.malloc(1 << 26)
libc.memset(block, 1, 1 << 26)
libc.free(block)
print(open('/proc/self/smaps').read())
"""


def memory_of_heap(field: str) -> int:
    """Returns a field of the process's heap, in bytes, after 64 MiB of it were written and freed."""
    smaps = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True).stdout
    heap = re.split(r'(?m)^(?=[0-9a-f]+-[0-9a-f]+ )', smaps)
    found = [int(n) for part in heap if '[heap]' in part for n in re.findall(rf'{field}: +(\d+) kB', part)]
    return 1024 * sum(found)


pytestmark = pytest.mark.skipif(
    not sys.platform.startswith('linux') or not Path('/proc/self/smaps').exists(),
    reason='/proc says what memory a process has on Linux alone',
)


def test_freed_memory_stays_with_the_process():
    assert memory_of_heap('Rss') >= 1 << 26


@pytest.mark.skipif(
    not ENABLED.exists()
    or '[never]' in ENABLED.read_text()
    or host_memory.OVERCOMMIT.read_text().strip() == host_memory.STRICT,
    reason='the system has no huge pages, or promises no more memory than it has',
)
def test_memory_comes_in_huge_pages():
    assert memory_of_heap('AnonHugePages') > 0
