"""Starts a command as several processes on this machine, which find each other as those of a pod would.

  python launch/local.py 4 -- python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Each line of output has the number of its process before it. When one process fails the others are given
time to end by themselves, which train.py does in seconds, and are then ended; the exit status is that of the
first to fail. SIGTERM and Ctrl-C go to all.

On CPU the processes share the cores; XLA_FLAGS=--xla_force_host_platform_device_count=D gives each D
devices. On a machine with accelerators one process uses them all, and this program is not needed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

PATIENCE = 20.0  # seconds that others have to end by themselves when one has failed


def start(count: int, command: list[str]) -> list[subprocess.Popen]:
    """Starts the processes, and a thread for each that prints what it writes."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    started = []
    for index in range(count):
        environment = os.environ | {
            'JAX_COORDINATOR_ADDRESS': address,
            'JAX_NUM_PROCESSES': str(count),
            'JAX_PROCESS_ID': str(index),
            'PYTHONUNBUFFERED': '1',
        }
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            start_new_session=True,  # the terminal's Ctrl-C reaches it once, through this program
        )
        assert process.stdout
        threading.Thread(target=show, args=(index, process.stdout)).start()
        started.append(process)
    return started


def show(index: int, output: IO[str]) -> None:
    """Prints each line with the number of the process that wrote it."""
    for line in output:
        print(f'{index} | {line}', end='', flush=True)


def send(processes: list[subprocess.Popen], number: int) -> None:
    """Sends a signal to all that run, and to what they have started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, number)


def wait(processes: list[subprocess.Popen]) -> int:
    """Returns the exit status of the first that failed, or 0, when all have ended."""
    status, failed_at, asked = 0, 0.0, False
    while None in [process.poll() for process in processes]:  # all are asked, so that none is left a zombie
        time.sleep(0.1)
        if not status and (failed := [p.returncode for p in processes if p.returncode]):
            status, failed_at = failed[0], time.monotonic()
        if status and time.monotonic() > failed_at + PATIENCE:
            send(processes, signal.SIGKILL if asked else signal.SIGTERM)
            asked, failed_at = True, failed_at + 10.0
    status = status or next((process.returncode for process in processes if process.returncode), 0)
    return 128 - status if status < 0 else status


def main() -> int:
    """Reads the command line; returns the exit status."""
    if sys.argv[1:] in (['-h'], ['--help']):
        print((__doc__ or '').strip())
        return 0
    count, separator, command = sys.argv[1:2], sys.argv[2:3], sys.argv[3:]
    if not (count and count[0].isdigit() and int(count[0]) > 0 and separator == ['--'] and command):
        print(f'error: it is used as\n{(__doc__ or "").splitlines()[2]}', file=sys.stderr)
        return 2
    processes = start(int(count[0]), command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: send(processes, received))
    return wait(processes)


if __name__ == '__main__':
    sys.exit(main())
