# ruff: noqa: E501 (lines of programs are long)
"""What devices send each other, read from TPU excerpts and from a program for 8 simulated devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planning import collectives, hlo

ROOT = Path(__file__).parents[2]
MESH = {'data': 4, 'fsdp': 16, 'tensor': 1, 'context': 1}


def measure(instruction: str, mesh=MESH) -> collectives.Traffic:
    """The traffic of a program of one instruction."""
    text = f'ENTRY %main (x: f32[]) -> f32[] {{\n  %x = f32[] parameter(0)\n  {instruction}\n}}\n'
    (traffic,) = collectives.measure(hlo.parse(text), mesh, {})
    return traffic


@pytest.mark.parametrize(
    ('groups', 'axes'),
    [
        ('{{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15},{16,17}}', ('fsdp',)),
        ('{{0,16,32,48}}', ('data',)),
        ('[4,16]<=[64]', ('fsdp',)),
        ('[16,4]<=[4,16]T(1,0)', ('data',)),
        ('[1,64]<=[64]', ('data', 'fsdp')),
        # As libtpu 0.0.42 writes them; the second numbers devices column by column.
        ("mesh['axis_0'=4,'axis_1'=1,'axis_2'=16] {'axis_2'}", ('fsdp',)),
        ("mesh['axis_0'=16,'axis_1'=1,'axis_2'=4], device_ids=([4,16]T(1,0)) {'axis_0'}", ('fsdp',)),
        ("mesh['axis_0'=16,'axis_1'=4], device_ids=([4,16]T(1,0)) {'axis_0','axis_1'}", ('data', 'fsdp')),
        ('{}', ('data', 'fsdp')),
    ],
)
def test_groups_of_devices_are_mesh_axes(groups, axes):
    traffic = measure(
        f'ROOT %g = bf16[64,128]{{1,0}} all-gather(%x), replica_groups={groups}, dimensions={{0}}'
    )
    assert traffic.axes == axes


@pytest.mark.parametrize(
    ('instruction', 'kind', 'payload', 'wire'),
    [
        ('%g = bf16[64,128] all-gather(%x)', 'all-gather', 16384, 15360),
        ('%g = f32[64,128] all-reduce(%x)', 'all-reduce', 32768, 61440),
        ('%g = f32[4,128] reduce-scatter(%x)', 'reduce-scatter', 32768, 30720),
        ('%g = f32[64,128] all-to-all(%x)', 'all-to-all', 32768, 30720),
        ('%g = (bf16[4,128], bf16[64,128]) all-gather-start(%x)', 'all-gather', 16384, 15360),
        ('%g = (f32[4], f32[8]) all-reduce(%x, %x)', 'all-reduce', 48, 90),
    ],
)
def test_payload_and_bytes_on_the_wire(instruction, kind, payload, wire):
    traffic = measure(f'ROOT {instruction}, replica_groups=[4,16]<=[64]')
    assert (traffic.kind, traffic.payload, traffic.wire) == (kind, payload, wire)


def test_a_permutation_sends_its_operand_once():
    traffic = measure(
        'ROOT %g = (f32[8,4], f32[8,4], u32[], u32[]) collective-permute-start(%x), '
        'source_target_pairs={{0,16},{16,32},{32,48},{48,0}}'
    )
    assert (traffic.axes, traffic.payload, traffic.wire) == (('data',), 128, 128)


CHAIN = """
%first (p: bf16[4,128]) -> bf16[64,128] {
  %p = bf16[4,128] parameter(0)
  ROOT %all-gather.1 = bf16[64,128] all-gather(%p), channel_id=52, replica_groups=[4,16]<=[64], frontend_attributes={chain_id="2"}
}

%second (p.1: bf16[4,128]) -> bf16[64,128] {
  %p.1 = bf16[4,128] parameter(0)
  ROOT %all-gather.2 = bf16[64,128] all-gather(%p.1), channel_id=52, replica_groups=[4,16]<=[64], frontend_attributes={chain_id="2"}
}

%all-reduce-scatter (p.2: f32[64,128]) -> f32[4,128] {
  %p.2 = f32[64,128] parameter(0)
  %all-reduce.1 = f32[64,128] all-reduce(%p.2), channel_id=53, replica_groups=[4,16]<=[64], to_apply=%add
  ROOT %slice = f32[4,128] dynamic-slice(%all-reduce.1, %i), dynamic_slice_sizes={4,128}
}

ENTRY %main (x: bf16[4,128], y: f32[64,128]) -> f32[4,128] {
  %x = bf16[4,128] parameter(0)
  %y = f32[64,128] parameter(1)
  %a = bf16[64,128] fusion(%x), kind=kCustom, calls=%first
  %b = bf16[64,128] fusion(%x), kind=kCustom, calls=%second
  ROOT %c = f32[4,128] fusion(%y), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_what_tpu_compilers_write_in_several_pieces_counts_once():
    gather, scatter = sorted(collectives.measure(hlo.parse(CHAIN), MESH, {}), key=lambda each: each.kind)
    assert (gather.kind, gather.count, gather.payload) == ('all-gather', 1, 16384)
    assert (scatter.kind, scatter.payload, scatter.wire) == ('reduce-scatter', 32768, 30720)
    assert (gather.alone, scatter.alone) == (0, 30720)  # the first is merged with products


@pytest.mark.parametrize(
    ('groups', 'dimensions'),
    [
        ('{{0,1,2,3}}', 1),
        ('{{0,4,8,12}}', 1),
        ('{{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}', 2),
        ('{}', 3),
    ],
)
def test_a_collective_may_go_along_fewer_dimensions_than_its_axis(groups, dimensions):
    text = (
        f'ENTRY %main (x: f32[]) -> f32[] {{\n  %g = bf16[64] all-gather(%x), replica_groups={groups}\n}}\n'
    )
    (traffic,) = collectives.measure(hlo.parse(text), MESH, {'fsdp': (4, 4)})
    assert traffic.dimensions == dimensions


GATHER = 'all-gather-start(%x), replica_groups=[4,16]<=[64], dimensions={0}'
CALL = 'call-start(%x), to_apply=%on_a_sparse_core'


@pytest.mark.parametrize(
    ('start', 'between', 'alone'),
    [
        (GATHER, '%p = f32[8] fusion(%y), kind=kOutput, calls=%f', False),
        (GATHER, '%p = f32[8] bitcast(%y)', True),
        (CALL, '%p = f32[8] convolution(%y, %y)', False),
        (CALL, '%p = f32[8] get-tuple-element(%y), index=0', True),
    ],
)
def test_what_is_sent_with_no_work_beside_it_is_alone(start, between, alone):
    text = f"""
%f (y.1: f32[8]) -> f32[8] {{
  ROOT %y.1 = f32[8] parameter(0)
}}

%on_a_sparse_core (x.1: bf16[4,128]) -> bf16[64,128] {{
  %x.1 = bf16[4,128] parameter(0)
  ROOT %all-gather.1 = bf16[64,128] all-gather(%x.1), replica_groups=[4,16]<=[64], dimensions={{0}}
}}

ENTRY %main (x: bf16[4,128], y: f32[8]) -> bf16[64,128] {{
  %x = bf16[4,128] parameter(0)
  %y = f32[8] parameter(1)
  %s = (bf16[4,128], bf16[64,128]) {start}
  {between}
  %e = bf16[64,128] {start.split('-start')[0]}-done(%s)
  ROOT %after = f32[8] fusion(%e), kind=kOutput, calls=%f
}}
"""
    (traffic,) = collectives.measure(hlo.parse(text), MESH, {})
    assert traffic.alone == (traffic.wire if alone else 0)


ON_EIGHT = """
import dataclasses, json
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from parallel.mesh import make_mesh
from planning import collectives, hlo

mesh = make_mesh({'data': 2, 'fsdp': 4, 'tensor': 1, 'context': 1})

def step(kernels, x):  # a gather in each of 5 iterations, and a sum at the end
    def layer(x, kernel):
        whole = jax.lax.with_sharding_constraint(kernel, P())
        return jnp.tanh(x @ whole), None
    return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

shape = lambda s, spec: jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(mesh, spec))
with jax.set_mesh(mesh):
    compiled = jax.jit(step).lower(shape((5, 64, 64), P(None, 'fsdp')), shape((16, 64), P(('data', 'fsdp')))).compile()
print(json.dumps([dataclasses.asdict(t) for t in collectives.measure(hlo.parse(compiled.as_text()), mesh.shape, {})]))
"""


def test_a_program_for_eight_devices_sends_what_it_must():
    environment = os.environ | {
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8',
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-c', ON_EIGHT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    traffic = {each['kind']: each for each in json.loads(done.stdout.splitlines()[-1])}
    kernel = 64 * 64 * 4
    assert traffic['all-gather']['axes'] == ['fsdp']
    assert traffic['all-gather']['payload'] == 5 * kernel
    assert traffic['all-gather']['wire'] == 5 * kernel * 3 // 4
    assert traffic['all-reduce']['axes'] == ['data', 'fsdp']
    assert traffic['all-reduce']['payload'] == 4
