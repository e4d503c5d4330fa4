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


@pytest.mark.slow
def test_losses_gradients_and_text_are_the_same_on_every_mesh():
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        # Programs this small run once: optimising them takes longer than running them.
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0',
        'PYTHONPATH': str(ROOT),
    }
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('meshes.py'))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert 'Involuntary full rematerialization' not in process.stderr
    results = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(results) == 7
    for family in ('gpt2', 'llama'):
        single, *others = [result for result in results if result['family'] == family]
        assert single['shape'] == [1, 1, 1, 1]
        for other in others:
            assert other['loss'] == pytest.approx(single['loss'], abs=1e-5)
            np.testing.assert_allclose(
                other['gradient'], single['gradient'], atol=1e-6
            )  # the largest is 0.17
            assert other['text'] == single['text']
