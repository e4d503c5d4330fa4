"""What processes learn of each other, with times shortened; they are Python's alone, without JAX."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 30

# Each prints 'ready' when all are connected; what it does then is the third argument.
PROGRAM = """
import sys, time
from pathlib import Path
from configs.errors import UserError
from parallel import peers
from parallel.progress import Progress

peers.BEAT, peers.SILENCE, peers.STUCK, peers.GRACE = 0.1, 1.5, 1.5, 0.5
index, count, role, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])

class Store:
    def key_value_set(self, key, value):
        (store / 'new').write_text(value)
        (store / 'new').rename(store / 'value')

    def blocking_key_value_get(self, key, milliseconds):
        while not (store / 'value').exists():
            time.sleep(0.01)
        return (store / 'value').read_text()

def main():
    progress = Progress()
    group = peers.Peers.join(index, count, 'localhost:1', Store(), progress)
    group.agree({'seed': 0, 'optimizer.learning_rate': 0.1 if role == 'differs' else 0.2})
    for step in range(1, 9):
        progress.begin(step)
        progress.finish(step - 1)
    print('ready', flush=True)
    if role == 'raises':
        raise ValueError('the disk is on fire')
    if role == 'ends':
        return 0
    time.sleep(0.3)
    if role != 'late':
        progress.begin(9)
    time.sleep(2 if role == 'long' else 20)

try:
    sys.exit(peers.ending_together(main)())
except UserError as error:
    sys.exit(f'error: {error}')
"""


def start(directory: Path, roles: list[str]) -> list[subprocess.Popen]:
    return [
        subprocess.Popen(
            [sys.executable, '-c', PROGRAM, str(index), str(len(roles)), role, str(directory)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index, role in enumerate(roles)
    ]  # fmt: skip


def wait_until_ready(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        assert process.stdout.readline() == 'ready\n'


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Returns the exit status and the standard error of each."""
    errors = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@pytest.mark.parametrize('victim', [0, 2])
@pytest.mark.parametrize(('ending', 'says'), [('KILL', 'is gone'), ('STOP', 'gave no sign of life for')])
def test_the_others_name_a_process_that_is_killed_or_stopped(tmp_path, victim, ending, says):
    processes = start(tmp_path, ['works'] * 3)
    wait_until_ready(processes)
    time.sleep(0.5)
    processes[victim].send_signal(signal.Signals['SIG' + ending])
    others = [process for process in processes if process is not processes[victim]]
    found = ends(others)
    processes[victim].kill()
    ends([processes[victim]])
    for index, (status, error) in zip([i for i in range(3) if i != victim], found, strict=True):
        assert status == 1
        assert re.match(rf'error: process {victim} \(\S+\) {says}', error)
        assert 'the last step finished there: step 7. ' in error
        assert f'Process {index} (' in error


def test_an_error_of_one_process_is_told_to_all(tmp_path):
    found = ends(start(tmp_path, ['works', 'raises', 'works']))
    assert [status for status, _ in found] == [1, 1, 1]
    assert 'Traceback' in found[1][1]
    for _, error in (found[0], found[2]):
        assert 'process 1 (' in error
        assert "ended by an error of its own: ValueError('the disk is on fire')" in error


@pytest.mark.parametrize('late', [0, 1])
def test_a_process_for_which_the_others_wait_too_long_is_named(tmp_path, late):
    roles = ['works'] * 3
    roles[late] = 'late'
    for status, error in ends(start(tmp_path, roles)):
        assert status == 1
        assert re.match(
            rf'error: process {late} \(\S+\) did not begin step 9, for which the others waited', error
        )


def test_different_facts_are_refused_by_all_with_both_values(tmp_path):
    for status, error in ends(start(tmp_path, ['works', 'works', 'differs'])):
        assert status == 2
        assert error.count('error:') == 1
        assert re.search(r'process 2 \(\S+\) is not like process 0 \(\S+\): ', error)
        assert 'optimizer.learning_rate: 0.1 there, 0.2 here' in error


def test_an_end_in_good_order_disturbs_nobody(tmp_path):
    found = ends(start(tmp_path, ['long', 'ends', 'long']))
    assert found == [(0, '')] * 3


def test_a_slow_step_is_reported_with_the_stacks_of_all_threads(tmp_path):
    program = """
import sys, time
from pathlib import Path
from parallel import progress
progress.SLOW_SECONDS = 0.5
here = progress.Progress()
here.record = Path(sys.argv[1])
progress.watch(here)
for step in range(1, 11):
    here.begin(step)
    time.sleep(0.01)
def hangs():
    time.sleep(3)
with here.pause():
    time.sleep(1.5)
assert not here.record.exists()
here.finish(10)
hangs()
"""
    log = tmp_path / 'log.txt'
    command = [sys.executable, '-c', program, str(log)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, env=os.environ)
    assert done.returncode == 0, done.stderr
    for text in (done.stderr, log.read_text()):
        assert re.match(
            r'step 10 began \d s ago and the next has not, .*the last step finished is 10\.', text
        )
        assert 'in hangs' in text
        assert text.count('began') == 1
