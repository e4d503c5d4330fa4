"""Jobs of a preparation on a Ray cluster: that of RAY_ADDRESS, or one begun on this machine."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.errors import UserError

ROOT = Path(__file__).parents[1]
RETRIES = 5  # of a job whose worker was killed; jobs write the same bytes again


def run(job: Callable[..., Any], arguments: dict[int, tuple], workers: int) -> Iterator[tuple[int, Any]]:
    """Yields (number, job(*arguments[number])) of each job as it is finished, in any order.

    workers: jobs done at once, each on one CPU; 0: on all CPUs of the cluster. All machines see this
    checkout and the data under the same names. Raises what a job raises, and UserError if Ray is
    not there, or loses workers again and again.
    """
    if not arguments:
        return
    try:
        import ray
    except ImportError as error:
        raise UserError(
            'data.engine=ray needs the package ray: .venv/bin/pip install -r requirements-ray.txt'
        ) from error
    _begin(ray, workers)
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_in_directory)
    limit = workers or 2 * max(1, int(ray.cluster_resources().get('CPU', 1)))  # so that none has to wait
    waiting = list(reversed(arguments.items()))
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                number, each = waiting.pop()
                running[remote.remote(os.getcwd(), job, each)] = number
            for done in ray.wait(list(running))[0]:
                yield running.pop(done), _result(ray, done)
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _in_directory(directory: str, job: Callable[..., Any], arguments: tuple) -> Any:
    """Does a job in the directory from which the relative names in its arguments are seen."""
    os.chdir(directory)
    return job(*arguments)


def _begin(ray: Any, workers: int) -> None:
    """Joins the cluster of RAY_ADDRESS, or begins one here with `workers` CPUs."""
    if ray.is_initialized():
        return
    if 'RAY_ADDRESS' in os.environ:
        _reach(os.environ['RAY_ADDRESS'])
    here = {'num_cpus': workers or os.cpu_count(), 'include_dashboard': False}
    ray.init(
        runtime_env={'env_vars': {'PYTHONPATH': str(ROOT)}},
        logging_level='error',
        log_to_driver=False,
        **({} if 'RAY_ADDRESS' in os.environ else {'address': 'local', **here}),
    )


def _reach(address: str) -> None:
    """Raises UserError if nothing listens at [ray://]HOST:PORT, which Ray would try for minutes."""
    found = re.fullmatch(r'(?:ray://)?(.+):(\d+)', address)
    if found is None:
        return  # 'auto' and the like, which Ray knows
    try:
        socket.create_connection((found[1].strip('[]'), int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f'RAY_ADDRESS={address} cannot be reached ({error}); start the cluster (ray start --head), or '
            'unset it to begin one on this machine.'
        ) from error


def _result(ray: Any, done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise UserError(
            f'Ray gave a job up: {str(error).strip()}. Finished parts are kept: run the same command again, '
            'if it was memory with fewer workers (data.num_workers).'
        ) from error
