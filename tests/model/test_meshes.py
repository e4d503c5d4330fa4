"""Two families on five meshes of 8 simulated devices, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def process():
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8',
        'NPROC': '32',  # threads, as parallel.processes sets them
        'PYTHONPATH': str(ROOT),
    }
    script = Path(__file__).with_name('meshes.py')
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def lines(process):
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.mark.parametrize(('family', 'meshes'), [('gpt2', 2), ('llama', 3)])
def test_losses_gradients_and_text_are_the_same_on_every_mesh(lines, family, meshes):
    single, *others = [line for line in lines if line.get('family') == family]
    assert single['shape'] == [1, 1, 1, 1]
    assert len(others) == meshes
    for other in others:
        assert other['loss'] == pytest.approx(single['loss'], abs=1e-5)
        np.testing.assert_allclose(other['gradient'], single['gradient'], atol=1e-6)  # the largest is 0.17
        assert other['text'] == single['text']


def test_hidden_states_between_blocks_are_cut_by_positions_over_tensor_too(lines):
    found = [line['hidden'] for line in lines if line.get('shape') == [2, 2, 2, 1]]
    assert found == [[8, 16, 32, 8 // 4, 16 // 2, 32]]


def test_splash_equals_xla_when_heads_and_positions_are_cut_up(lines):
    errors = [line['splash_error'] for line in lines if 'splash_error' in line]  # in order, and placed
    assert len(errors) == 2
    assert max(errors) < 1e-5


def test_the_compiler_never_lays_out_an_array_by_copying_all_of_it(process):
    assert 'Involuntary full rematerialization' not in process.stderr
