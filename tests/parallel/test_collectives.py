"""Gradients summed into shards, look-ups and blocked losses: on 8 simulated devices, and off any mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from parallel import rings
from tests.parallel import sums

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def lines():
    environment = os.environ | {
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8',
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).with_name('sums.py'))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_gradients_are_the_formulas_on_every_mesh(lines):
    assert len(lines) == sum(map(len, sums.MESHES.values()))
    for line in lines:
        # Sums of up to 32 products of numbers around 1, in float32.
        assert line['error'] < 5e-5, line
        assert line['gathered'] == 0, line


@pytest.mark.slow
def test_gradients_are_reduced_and_scattered(lines):
    """Product, two look-ups, two losses in blocks: five gradients, each once for each ring."""
    for line in lines:
        if line['shape'] == [1, 8, 1, 1]:
            assert line['scatters'] == 5 * len(line['rings'] or [8])


@pytest.mark.slow
def test_what_tensor_cuts_is_not_gathered_for_a_sum(lines):
    """Left to the compiler, a sum by groups of devices is gathered first along the other axes."""
    for line in lines:
        assert line['gathers of the product'] == 0, line


def test_they_are_the_same_without_a_mesh():
    found = jax.jit(sums.compute)(sums.x, sums.kernel, sums.kernel.T, sums.ids)
    assert sums.error(jax.device_get(found), jax.device_get(sums.expected())) < 5e-5


@pytest.mark.parametrize(
    ('order', 'sizes'),
    [
        ([(0, x, y) for x in range(4) for y in range(2)], (4, 2)),
        ([(0, y, x) for x in range(4) for y in range(2)], (4, 2)),
        ([(z, x, y) for z in range(2) for x in range(3) for y in range(4)], (2, 3, 4)),
        ([(0, 0, y) for y in range(8)], (8,)),
        ([(0, 0, y) for y in (0, 1, 2, 3)] + [(0, 1, y) for y in (3, 2, 1, 0)], (8,)),  # a snake
        ([(0, 0, 0)], (1,)),
    ],
)
def test_rings_are_found_from_places(order, sizes):
    assert rings._rings(np.array(order)) == sizes


def test_groups_of_a_ring_differ_only_there():
    assert rings.groups((2, 3), 1) == [[0, 1, 2], [3, 4, 5]]
    assert rings.groups((2, 3), 0) == [[0, 3], [1, 4], [2, 5]]
