"""Work shared out to processes: one function, many jobs, results as they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from configs.errors import UserError


def count(wanted: int, jobs: int) -> int:
    """Returns how many processes share `jobs`: `wanted` (0: one per core), never more than jobs."""
    return min(wanted or os.cpu_count() or 1, jobs)


def run(function: Callable[..., Any], jobs: Sequence[tuple], workers: int) -> Iterator[tuple[int, Any]]:
    """Yields (number of the job, function(*job)) of each job as it is finished, in any order.

    Function, jobs and results must be picklable. One worker is this very process. A worker ends with its
    parent, even if that was killed. Raises UserError when a worker was killed.
    """
    if workers <= 1:
        yield from ((number, function(*job)) for number, job in enumerate(jobs))
        return
    # Fresh processes: forked ones would inherit the state of threads that do not exist in them.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)
    try:
        with _without_interrupts():  # workers inherit this: only the parent hears Ctrl-C
            futures = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
        for future in as_completed(list(futures)):
            # Neither this dict nor the future may keep the result, which can be large.
            yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            'a process of prepare.py was killed, perhaps for want of memory. Finished parts are kept: run it '
            'again, with a smaller data.num_workers if it was memory.'
        ) from error
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Lets this process end when its parent does, even if that was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
