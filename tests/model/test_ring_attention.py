"""Ring attention and balanced placement on 8 simulated devices, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def found() -> dict:
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8',
        'NPROC': '32',  # threads, as parallel.processes sets them
        'PYTHONPATH': str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).with_name('ring.py'))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_results_and_gradients_are_those_of_one_device(found):
    # float32 sums over blocks instead of all keys at once; values are of the size of 1.
    assert len(found['errors']) == 13
    assert max(found['errors'].values()) < 1e-5, found['errors']


@pytest.mark.slow
def test_placement_gives_every_device_the_same_number_of_blocks(found):
    """Of the (2C)² pairs of chunks, those before or on the diagonal are computed: 2C(2C + 1)/2 in all."""
    for devices, (placed, in_order) in found['blocks'].items():
        count = int(devices)
        assert placed == [2 * count + 1] * count
        assert in_order == [4 * device + 3 for device in range(count)]
        assert sum(in_order) == sum(placed) == count * (2 * count + 1)


@pytest.mark.slow
def test_blocks_beyond_the_window_are_skipped(found):
    """With a window of one chunk, each chunk sees itself and the one before it, which the first has not."""
    assert found['window'] == [3, 4, 4, 4]


@pytest.mark.slow
def test_placed_hidden_states_come_back_into_order(found):
    assert found['home'] == [True, True, True]
