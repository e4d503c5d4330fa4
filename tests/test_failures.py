"""One of four processes is killed; the others say which, and two continue where the four were.

LATHE_KILLS=5 kills five times, and LATHE_STOPS=1 also stops a process without ending it (SIGSTOP).
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # as in test_layouts.py
STEPS = 40
ENDINGS = [signal.SIGKILL] * int(os.environ.get('LATHE_KILLS', 1))
ENDINGS += [signal.SIGSTOP] * int(os.environ.get('LATHE_STOPS', 0))


def start(directory: Path, workdir: Path, processes: int, *more: str) -> subprocess.Popen:
    command = [
        *([sys.executable, 'launch/local.py', str(processes), '--'] if processes > 1 else []),
        *(sys.executable, 'train.py', '--config=configs/quickstart.py:smoke', f'--workdir={workdir}'),
        f'--config.data.path={directory / "prepared"}',
        *('--config.batch_size=16', '--config.sequence_length=32', '--config.sample_every=0'),
        *('--config.eval_every=0', f'--config.num_steps={STEPS}', '--config.checkpoint_every=5'),
        *('--config.mesh.data=4', '--config.mesh.fsdp=2', *more),
    ]
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={8 // processes}'
    with workdir.with_suffix('.log').open('a') as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {'XLA_FLAGS': flags}, stdout=log, stderr=subprocess.STDOUT
        )


def losses(workdir: Path) -> list[float]:
    try:
        lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line)['loss'] for line in lines if line.endswith('}')]


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Prepared text and `one`, the uninterrupted run of a single process."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('failures')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        file.writelines(json.dumps({'text': text}) + '\n' for text in topics.values())
    command = [sys.executable, 'prepare.py', '--config=configs/quickstart.py:smoke', '--config.batch_size=16']
    command += ['--config.sequence_length=32', f'--config.data.source={directory / "topics.jsonl"}']
    subprocess.run([*command, f'--config.data.path={directory / "prepared"}'], cwd=ROOT, check=True)
    assert start(directory, directory / 'one', 1).wait(timeout=300) == 0
    return directory


def processes_of(launcher: subprocess.Popen) -> dict[int, int]:
    """Returns {index: process id} of those that launch/local.py started."""
    children = Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text().split()
    index = re.compile(rb'JAX_PROCESS_ID=(\d+)')
    return {int(index.search(Path(f'/proc/{pid}/environ').read_bytes())[1]): int(pid) for pid in children}


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='finds processes in /proc')
@pytest.mark.parametrize(('number', 'ending'), list(enumerate(ENDINGS)))
def test_the_end_of_one_process_ends_all_and_fewer_continue(directory, number, ending):
    random.seed(number)
    victim, moment = random.randrange(4), random.randrange(6, STEPS - 5)
    workdir = directory / f'run-{number}-{ending.name}'
    four = start(directory, workdir, 4)
    while len(losses(workdir)) < moment and four.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    children = processes_of(four)
    os.kill(children[victim], ending)
    since = time.monotonic()
    others = [pid for index, pid in children.items() if index != victim]
    while any(Path(f'/proc/{pid}').exists() for pid in others) and time.monotonic() < since + 60:
        time.sleep(0.05)
    seconds = time.monotonic() - since
    if ending == signal.SIGSTOP:
        os.kill(children[victim], signal.SIGKILL)
    assert four.wait(timeout=60) != 0
    log = workdir.with_suffix('.log').read_text()
    said = [
        line
        for line in log.splitlines()
        if re.search(rf'error: process {victim} \(.+\) (is gone|gave no)', line)
    ]
    print(f'{ending.name} of process {victim} at step {moment}: all ended after {seconds:.1f} s\n{said[0]}')
    assert seconds < 60
    assert {line[0] for line in said} == set('0123') - {str(victim)}
    assert all(re.search(r'the last step finished there: step \d+\.', line) for line in said)

    assert start(directory, workdir, 2).wait(timeout=300) == 0
    assert 'continuing from step' in (workdir / 'log.txt').read_text()
    np.testing.assert_allclose(losses(workdir), losses(directory / 'one'), rtol=TOLERANCE)
