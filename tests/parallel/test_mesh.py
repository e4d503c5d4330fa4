"""Layouts, on eight simulated devices in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import jax, numpy as np, pytest
from jax.sharding import PartitionSpec as P
from configs import base
from configs.errors import UserError
from parallel.mesh import BATCH_SPEC, ROW_SPEC, check_batch, global_array, local_part, local_rows, make_mesh

def shape(data, fsdp, tensor, context):
    return dict(data=data, fsdp=fsdp, tensor=tensor, context=context)

assert dict(make_mesh(shape(-1, 2, 1, 2)).shape) == shape(2, 2, 1, 2)
assert dict(make_mesh(shape(1, 1, 8, 1)).shape) == shape(1, 1, 8, 1)
for wrong in ((3, 1, 1, 1), (-1, -1, 1, 1), (0, 1, 1, 1), (2, 1, 1, 1), (-1, 16, 1, 1)):
    with pytest.raises(UserError, match='mesh data='):
        make_mesh(shape(*wrong))

mesh = make_mesh(shape(2, 2, 1, 2))
config = base.get_config()
config.batch_size, config.sequence_length = 8, 16
check_batch(mesh, config)
config.batch_size = 10
with pytest.raises(UserError, match='batch_size=10 does not divide over 4 data shards .*use a multiple of 4'):
    check_batch(mesh, config)
config.batch_size, config.grad_accumulation = 8, 4
with pytest.raises(UserError, match='use a multiple of 16'):
    check_batch(mesh, config)
config.grad_accumulation, config.sequence_length = 1, 15
with pytest.raises(UserError, match='sequence_length=15'):
    check_batch(mesh, config)

rows = local_rows(mesh, 8)
assert rows == slice(0, 8)
whole = np.arange(8 * 16).reshape(8, 16)
array = global_array(mesh, whole, rows, 8)
assert array.sharding.spec == BATCH_SPEC and array.addressable_shards[0].data.shape == (2, 8)
np.testing.assert_array_equal(np.asarray(array), whole)
np.testing.assert_array_equal(local_part(array, rows), whole)
positions = global_array(mesh, whole[:, :3], rows, 8, ROW_SPEC)
assert positions.addressable_shards[0].data.shape == (2, 3)
np.testing.assert_array_equal(local_part(positions, rows), whole[:, :3])
labels = global_array(mesh, whole[:, 0], rows, 8)
assert labels.sharding.spec == P(BATCH_SPEC[0])
print('all facts hold')
"""


def test_meshes_and_arrays_on_eight_devices():
    environment = os.environ | {
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8'
    }
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'all facts hold' in done.stdout, done.stderr


@pytest.mark.parametrize('given', [{'JAX_NUM_PROCESSES': '2'}, {'JAX_COORDINATOR_ADDRESS': 'localhost:1'}])
def test_half_a_cluster_is_refused(given):
    program = 'from parallel import processes; processes.start()'
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=ROOT,
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 'set all three or none' in done.stderr
