"""Jobs of a preparation, done by this process, by several, or by a Ray cluster."""

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

from configs.errors import UserError, choose


def run(
    job: Callable[..., Any], arguments: dict[int, tuple], workers: int, engine: str = 'processes'
) -> Iterator[tuple[int, Any]]:
    """Yields (number, job(*arguments[number])) of each job as it is finished, in any order.

    workers: as data.num_workers; engine: as data.engine.
    """
    if choose('data.engine', engine, ('processes', 'ray')) == 'ray':
        from data import ray_cluster

        yield from ray_cluster.run(job, arguments, workers)
        return
    workers = min(workers or os.cpu_count() or 1, len(arguments))
    if workers <= 1:
        yield from ((number, job(*each)) for number, each in arguments.items())
        return
    # Fresh processes: forked ones would inherit the state of threads that do not exist in them.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)
    try:
        with _without_interrupts():  # workers inherit this: only the parent hears Ctrl-C
            futures = {pool.submit(job, *each): number for number, each in arguments.items()}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()  # popped, so that results do not pile up
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
def _without_interrupts():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what came meanwhile is heard now


def _end_with_parent() -> None:
    """Lets this process end when its parent does, even if that was killed."""

    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(job: Callable[..., Any], arguments: Sequence[tuple], workers: int) -> list[Any]:
    """Returns the results of all jobs, in the order of their arguments."""
    results = dict(run(job, dict(enumerate(arguments)), workers))
    return [results[number] for number in range(len(arguments))]
