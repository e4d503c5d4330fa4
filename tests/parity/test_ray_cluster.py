"""prepare.py on a Ray cluster of this machine writes what it writes without, also when a worker is killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.parity.preparations import begin, contents, write_topics

pytest.importorskip('ray')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """Six parts of 2 MiB."""
    path = tmp_path_factory.mktemp('ray') / 'topics.txt'
    write_topics(path, 12_000_000)
    return path


@pytest.fixture(scope='module')
def whole(source) -> dict[str, bytes]:
    """What this machine's own processes write."""
    process = begin(source, source.parent / 'whole')
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    return contents(source.parent / 'whole')


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes at work on a job; Ray writes its name into their titles."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            if '_in_directory' in each.cmdline()[0]:
                found.append(each)
        except (psutil.Error, IndexError):
            continue  # it ended in between
    return found


@pytest.mark.parametrize('workers', [1, 2])
def test_a_killed_worker_loses_nothing(source, whole, workers):
    name = f'workers-{workers}'
    process = begin(source, source.parent / name, '--engine=ray', f'--config.data.num_workers={workers}')
    parts, deadline = source.parent / name / 'parts', time.monotonic() + 120
    killed = []
    while not killed and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if list(parts.glob('*.json')):
            killed = workers_of(process)[:1]
            for worker in killed:
                os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.05)
    assert killed
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert contents(source.parent / name) == whole


@pytest.mark.parametrize('address', ['localhost:9', 'ray://localhost:9', 'localhost:99999'])
def test_a_cluster_out_of_reach_is_named_at_once(source, address):
    environment = {'RAY_ADDRESS': address}
    process = begin(source, source.parent / 'nowhere', '--engine=ray', environment=environment)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 2, output
    assert f'RAY_ADDRESS={address} cannot be reached' in output
    assert 'Traceback' not in output


def test_a_mistake_is_told_as_without_ray(source):
    bad = source.with_name('bad.txt')
    bad.write_bytes(b'fine\n\n\xff\xfe\n' * 3)
    flags = ('--config.data.num_workers=1', '--config.data.cleaning.unicode=NFC')  # jobs clean, and meet it
    said = []
    for more in (flags, ('--engine=ray', *flags)):
        process = begin(bad, source.parent / 'bad', *more)
        said.append(process.communicate(timeout=200)[0].splitlines()[-1])
        assert process.returncode == 2
    assert said[0] == said[1]
    assert 'which is not UTF-8' in said[0]
