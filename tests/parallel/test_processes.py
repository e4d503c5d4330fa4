"""How the environment says that there are several processes, and that they find each other by it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from parallel.processes import cluster

ROOT = Path(__file__).parents[2]

PLAIN = {'JAX_COORDINATOR_ADDRESS': 'node-1:80', 'JAX_NUM_PROCESSES': '4', 'JAX_PROCESS_ID': '3'}


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        ({}, None),
        (PLAIN, ('node-1:80', 4, 3)),
        (PLAIN | {'JAX_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '2'}, ('node-1:80', 4, 2)),
        ({'JOB_COMPLETION_INDEX': '0'}, None),
        ({'LATHE_DISTRIBUTED': '1'}, (None, None, None)),
        ({'SLURM_STEP_NUM_TASKS': '2', 'SLURM_JOB_ID': '7'}, (None, None, None)),
        ({'SLURM_STEP_NUM_TASKS': '1', 'SLURM_JOB_ID': '7'}, None),
    ],
)
def test_the_environment_says_who_the_others_are(environment, expected):
    assert cluster(environment) == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'JAX_PROCESS_ID': '4'}, 'one of 0, 1, … below it'),
        ({'JAX_NUM_PROCESSES': 'many'}, 'JAX_NUM_PROCESSES=many'),
        ({'JAX_PROCESS_ID': ''}, 'JAX_PROCESS_ID is not set'),
        ({'JAX_COORDINATOR_ADDRESS': 'node-1'}, 'JAX_COORDINATOR_ADDRESS=node-1 must be HOST:PORT'),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        cluster(PLAIN | change)


def test_tasks_of_slurm_find_each_other():
    """By the variables that srun sets for two tasks on one machine."""
    program = (
        'import jax; from parallel import processes; peers = processes.start();'
        'peers.agree({"seed": 0}); print(jax.process_index(), jax.process_count()); peers.leave()'
    )
    step = {
        'SLURM_JOB_ID': str(os.getpid()), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_NUM_NODES': '1',
        'SLURM_NTASKS': '2', 'SLURM_STEP_NUM_TASKS': '2',
    }  # fmt: skip
    tasks = [
        subprocess.Popen(
            [sys.executable, '-c', program],
            cwd=ROOT,
            env=os.environ | step | {'SLURM_PROCID': str(task), 'SLURM_LOCALID': str(task)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(2)
    ]
    for index, task in enumerate(tasks):
        output, error = task.communicate(timeout=60)
        assert output == f'{index} 2\n', error
