"""Two "hosts" on one machine: network namespaces with addresses of their own, joined by a wire."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
TOLERANCE = 1e-4  # as in test_layouts.py

NAMES = [f'lathe-{os.getpid()}-{index}' for index in range(2)]
ADDRESSES = ['10.77.0.1', '10.77.0.2']


def ip(words: str) -> None:
    subprocess.run(['ip', *words.split()], check=True, capture_output=True)


@pytest.fixture
def hosts():
    try:
        ip(f'netns add {NAMES[0]}')
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'no network namespaces here: {error}')
    try:
        ip(f'netns add {NAMES[1]}')
        for index, name in enumerate(NAMES):
            # Gloo listens at the address of the host's own name, which is here to be found.
            files = Path('/etc/netns') / name
            files.mkdir(parents=True)
            (files / 'hosts').write_text(f'127.0.0.1 localhost\n{ADDRESSES[index]} host-{index}\n')
        ip(f'link add veth0 netns {NAMES[0]} type veth peer name veth1 netns {NAMES[1]}')
        for index, name in enumerate(NAMES):
            ip(f'-n {name} link set lo up')
            ip(f'-n {name} addr add {ADDRESSES[index]}/24 dev veth{index}')
            ip(f'-n {name} link set veth{index} up')
        yield NAMES
    finally:
        for name in NAMES:
            subprocess.run(['ip', 'netns', 'delete', name], check=False)
            shutil.rmtree(Path('/etc/netns') / name, ignore_errors=True)


def test_two_hosts_train_as_one(hosts, tmp_path):
    flags = [
        '--config=configs/quickstart.py:smoke', f'--config.data.path={tmp_path / "prepared"}',
        '--config.batch_size=16', '--config.sequence_length=32', '--config.num_steps=10',
        '--config.sample_every=0', '--config.eval_every=0',
        f'--config.data.source={tmp_path / "topics.jsonl"}',
    ]  # fmt: skip
    from pydoc_data.topics import topics

    with (tmp_path / 'topics.jsonl').open('w', encoding='utf-8') as file:
        file.writelines(json.dumps({'text': text}) + '\n' for text in topics.values())
    subprocess.run([sys.executable, 'prepare.py', *flags], cwd=ROOT, check=True, capture_output=True)

    def run(name: str, devices: int, prefix: list[str], environment: dict[str, str]) -> subprocess.Popen:
        command = [*prefix, sys.executable, 'train.py', *flags, f'--workdir={tmp_path / name}']
        xla_flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
        environment |= {'XLA_FLAGS': xla_flags}
        with (tmp_path / f'{name}-{environment.get("JAX_PROCESS_ID")}.log').open('w') as log:
            return subprocess.Popen(
                [*command, '--config.mesh.data=2', '--config.mesh.fsdp=2'],
                cwd=ROOT, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    assert run('one', 4, [], {}).wait(timeout=300) == 0
    both = [
        run(
            'two', 2,
            [
                *('ip', 'netns', 'exec', name, 'unshare', '--uts'),
                *('sh', '-c', 'hostname $0 && exec "$@"', f'host-{index}'),
            ],
            {
                'JAX_COORDINATOR_ADDRESS': f'{ADDRESSES[0]}:8476',
                'JAX_NUM_PROCESSES': '2',
                'JAX_PROCESS_ID': str(index),
            },
        )
        for index, name in enumerate(hosts)
    ]  # fmt: skip
    assert [process.wait(timeout=300) for process in both] == [0, 0], [
        log.read_text()[-3000:] for log in tmp_path.glob('two-*.log')
    ]
    losses = [
        [json.loads(line)['loss'] for line in (tmp_path / name / 'metrics.jsonl').read_text().splitlines()]
        for name in ('one', 'two')
    ]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(losses[1], losses[0], rtol=TOLERANCE)
