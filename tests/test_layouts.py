"""The same training on every mesh, with accumulation, on several processes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

# Sums over devices, parts and tiles are made in another order, so float32 rounding (6e-8) differs;
# over 30 steps of Adam it grows some thousandfold.
TOLERANCE = 1e-4
DATA, FSDP, CUT, RING = (8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2)
# (family, mesh, parts of a batch): gpt2 on all meshes, whole and in parts; llama where it adds something.
RUNS = [('gpt2', mesh, parts) for mesh in (DATA, FSDP, CUT, RING) for parts in (1, 4)]
RUNS += [('llama', CUT, 1), ('llama', RING, 1)]
ON_ONE_DEVICE = [(family, (1, 1, 1, 1), parts) for family, parts in (('gpt2', 1), ('gpt2', 4), ('llama', 1))]

TRAIN_MESHES = """
import json, sys
from pathlib import Path
from configs import gpt2, llama
import train

directory = Path(sys.argv[1])
for name, mesh, parts in json.loads(sys.argv[2]):
    config = {'gpt2': gpt2, 'llama': llama}[name].get_config('smoke')
    config.batch_size = 32
    config.sequence_length = 32
    config.grad_accumulation = parts
    config.data.source = str(directory / 'topics.jsonl')
    config.data.path = str(directory / 'prepared')
    config.data.eval_fraction = 0.1
    config.checkpoint_every = config.sample_every = 0
    config.eval_every = 30 if parts == 1 else 0
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context = mesh
    label = '-'.join(map(str, [name, *mesh, parts]))
    assert train.train(config, directory / 'runs' / label) == 0
"""


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Prepared text, and runs/FAMILY-MESH-PARTS of 30 steps each."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('layouts')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            file.write(json.dumps({'text': text}) + '\n')
    subprocess.run(
        [sys.executable, 'prepare.py', *flags(directory)], cwd=ROOT, check=True, capture_output=True
    )
    return directory


def flags(directory: Path) -> list[str]:
    return [
        '--config=configs/quickstart.py:smoke',
        '--config.batch_size=32',
        '--config.sequence_length=32',
        f'--config.data.source={directory / "topics.jsonl"}',
        f'--config.data.path={directory / "prepared"}',
        '--config.data.eval_fraction=0.1',
        '--config.sample_every=0',
    ]


def losses(workdir: Path, name: str = 'loss') -> list[float]:
    records = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [record[name] for record in records if name in record]


def train_meshes(directory: Path, runs, devices: int) -> str:
    xla_flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    done = subprocess.run(
        [sys.executable, '-c', TRAIN_MESHES, str(directory), json.dumps(runs)],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': xla_flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_losses_are_the_same_on_every_mesh_and_with_accumulation(directory):
    train_meshes(directory, ON_ONE_DEVICE, devices=1)
    stderr = train_meshes(directory, RUNS, devices=8)
    assert 'Involuntary full rematerialization' not in stderr
    for family, mesh, parts in RUNS + ON_ONE_DEVICE:
        run = directory / 'runs' / '-'.join(map(str, [family, *mesh, parts]))
        for name in ('loss', 'grad_norm') if parts > 1 else ('loss', 'grad_norm', 'eval/loss'):
            expected = losses(directory / 'runs' / f'{family}-1-1-1-1-1', name)
            assert len(expected) == (1 if name == 'eval/loss' else 30)
            np.testing.assert_allclose(
                losses(run, name), expected, rtol=TOLERANCE, err_msg=f'{run.name} {name}'
            )


def start(directory: Path, workdir: Path, processes: int, *more: str) -> list[subprocess.Popen]:
    """Starts train.py as several processes with 8 devices between them."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    started = []
    xla_flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={8 // processes}'
    for index in range(processes):
        environment = os.environ | {'XLA_FLAGS': xla_flags}
        if processes > 1:
            environment |= {
                'JAX_COORDINATOR_ADDRESS': address,
                'JAX_NUM_PROCESSES': str(processes),
                'JAX_PROCESS_ID': str(index),
            }
        command = [sys.executable, 'train.py', *flags(directory), f'--workdir={workdir}', *more]
        with (directory / f'log-{index}.txt').open('w') as log:
            started.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
    return started


def finish(directory: Path, started: list[subprocess.Popen]) -> None:
    statuses = [process.wait(timeout=600) for process in started]
    logs = [(directory / f'log-{index}.txt').read_text()[-3000:] for index in range(len(started))]
    assert statuses == [0] * len(started), '\n'.join(logs)


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_two_processes_train_as_one_and_resume_as_one(mode, directory, tmp_path):
    more = (
        f'--config.data.mode={mode}',
        '--config.mesh.data=2',
        '--config.mesh.fsdp=2',
        '--config.mesh.tensor=2',
    )
    finish(directory, start(directory, tmp_path / 'one', 1, *more))
    expected = losses(tmp_path / 'one')
    assert len(expected) == 30

    both = start(directory, tmp_path / 'two', 2, *more)
    while not (tmp_path / 'two' / 'checkpoints' / '20').exists() and both[0].poll() is None:
        time.sleep(0.01)
    for process in both:
        process.kill()
        process.wait()
    np.testing.assert_allclose(losses(tmp_path / 'two')[:19], expected[:19], rtol=TOLERANCE)

    # The rest on one process and another mesh.
    more = (f'--config.data.mode={mode}', '--config.mesh.data=4', '--config.mesh.context=2')
    finish(directory, start(directory, tmp_path / 'two', 1, *more))
    assert 'continuing from step' in (tmp_path / 'two' / 'log.txt').read_text()
    np.testing.assert_allclose(losses(tmp_path / 'two'), expected, rtol=TOLERANCE)


def test_damage_that_only_one_process_sees_is_known_to_all(directory, tmp_path):
    mesh = ('--config.mesh.data=2', '--config.mesh.fsdp=4')
    run = tmp_path / 'run'
    finish(directory, start(directory, run, 2, '--config.num_steps=20', *mesh))
    theirs = (run / 'checkpoints' / '20' / 'state' / 'ocdbt.process_1' / 'd').iterdir()
    os.truncate(max(theirs, key=lambda path: path.stat().st_size), 100)
    finish(directory, start(directory, run, 2, '--config.num_steps=21', *mesh))
    assert (run / 'damaged' / '20').is_dir()
    assert 'continuing from step 10' in (directory / 'log-0.txt').read_text()
    assert len(losses(run)) == 21
