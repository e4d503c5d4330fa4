"""Which layouts are tried, and in which order; slices by name; the roofline's arithmetic."""

from __future__ import annotations

import dataclasses

import pytest

import objectives
from configs import llama
from configs.errors import UserError
from parallel.chips import CHIPS
from planning import search, topologies
from planning.collectives import Traffic
from planning.estimate import Layout, estimate
from planning.roofline import roofline
from planning.step import Step, model_config, vocabulary


def work(**changes):
    config = llama.get_config('7b')
    config.update_from_flattened_dict(changes)
    objective = objectives.get('causal')
    return search.work(config, model_config(config, 'tpu'), objective, vocabulary(config))


def test_layouts_divide_devices_batch_and_model():
    tried = list(search.layouts(work(), 256, vocab_blocks=5))
    assert len(tried) == len(set(tried)) > 100
    for layout in tried:
        assert layout.data * layout.fsdp * layout.tensor * layout.context == 256
        assert 1024 % (layout.data * layout.fsdp * layout.parts) == 0
        assert 32 % layout.tensor == 0
        assert 32_000 // layout.tensor % layout.vocab_blocks == 0
        assert layout.context == 1, 'rows of 4,096 tokens are not cut'


def test_long_rows_may_be_cut():
    tried = search.layouts(work(sequence_length=1 << 20, batch_size=4), 256)
    assert {layout.context for layout in tried} > {64}


def test_what_fits_comes_first_and_less_memory_needs_more_time():
    chip = CHIPS['v5e']
    ranked = search.rank(work(), chip, (16, 16), 256)
    fits = [estimated.memory <= search.ROOM * chip.memory for _, estimated in ranked]
    assert fits == sorted(fits, reverse=True)
    times = [estimated.order for (_, estimated), fit in zip(ranked, fits, strict=True) if fit]
    assert times == sorted(times)
    mesh = ranked[0][0].mesh
    by_remat = {
        remat: next(e for one, e in ranked if one.remat == remat and one.mesh == mesh and one.parts == 4)
        for remat in search.REMATS
    }
    assert by_remat['none'].memory > by_remat['dots'].memory > by_remat['full'].memory
    assert by_remat['none'].compute < by_remat['dots'].compute < by_remat['full'].compute


def test_sums_add_to_the_time_where_products_wait_for_them():
    layout = Layout(data=2, fsdp=64, tensor=2, context=1, parts=4, remat='dots', vocab_blocks=5)
    waits, hides = (
        estimate(layout, work(), dataclasses.replace(CHIPS['v5e'], sums_wait=sums_wait), (16, 16))
        for sums_wait in (True, False)
    )
    # Four parts of half the kernels in float32, of which each of 128 devices sends all but its own share.
    sent = 4 * work().num_params / 2 * 4 * 127 / 128
    assert waits.waited - hides.waited == pytest.approx(sent / 100e9)
    assert waits.seconds > hides.seconds


def test_moments_on_the_host_need_no_memory_of_the_device():
    layout = Layout(data=1, fsdp=256, tensor=1, context=1, parts=4, remat='dots', vocab_blocks=5)
    here, there = (
        estimate(layout, work(**{'optimizer.offload': offload}), CHIPS['v5e'], (16, 16)).memory
        for offload in (False, True)
    )
    assert here - there == pytest.approx(8 * work().num_params / 256)


def test_no_mesh_is_compiled_more_than_twice():
    chosen = search.promising(search.rank(work(), CHIPS['v5e'], (16, 16), 256), 8)
    meshes = [tuple(layout.mesh.values()) for layout, _ in chosen]
    assert len(chosen) == 8
    assert max(meshes.count(mesh) for mesh in meshes) <= 2


@pytest.mark.parametrize('name', ['v5e:4x4', 'v6e:1x1', 'v4:2x2x1', 'v5p:8x8x16', 'tpu7x:2x2x2'])
def test_slices_have_their_devices(name):
    topology = topologies.parse(name)
    chips = 1
    for side in topology.sides:
        chips *= side
    assert topology.num_devices == chips * (2 if name.startswith('tpu7x') else 1)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('v9:4x4', 'Known are v4, v5e, v5p, v6e, tpu7x'),
        ('v5e:3x3', '1x1, 2x2, 2x4, 4x4'),
        ('v5p:4x4x5', "Did you mean '4x4x8'"),
        ('v5e', '1x1, 2x2'),
    ],
)
def test_unknown_slices_are_refused_with_the_known(name, hint):
    with pytest.raises(UserError, match=hint):
        topologies.parse(name)


STEP = Step(
    mesh={'data': 1, 'fsdp': 4, 'tensor': 2, 'context': 1},
    rings={'data': 1, 'fsdp': 2, 'tensor': 1, 'context': 1},
    tokens=8_000,
    num_params=10**9,
    compute_dtype='bfloat16',
    parameters=10**9,
    optimizer=2 * 10**9,
    host=0,
    batch=1000,
    temporaries=10**9,
    peak=4 * 10**9,
    fits=True,
    model_flops=8 * 10**12,
    flops=10 * 10**12,
    moved=0,
    updated=10**9,
    least_moved=8 * 10**9,
    collectives=(
        Traffic('all-gather', ('fsdp',), 2, 'bf16', 1, 10**9, 2 * 10**9, 0),
        Traffic('all-reduce', ('tensor',), 1, 'bf16', 1, 10**9, 3 * 10**9, 0),
    ),
    unknown_loops=0,
    compile_seconds=1.0,
)


def test_the_roofline_is_the_slowest_of_three():
    chip = dataclasses.replace(
        CHIPS['v5e'], flops=1e14, memory_bandwidth=1e12, link_bandwidth=5e10, dimensions=2
    )
    roof = roofline(STEP, chip)
    assert roof.compute == pytest.approx(10e12 / 8 / 1e14)  # 12.5 ms
    assert roof.memory == pytest.approx(8e-3)
    assert roof.links == pytest.approx({'fsdp': 2e9 / 2e11, 'tensor': 3e9 / 1e11})  # over 4 and 2 links
    assert (roof.seconds, roof.bound_by) == (pytest.approx(0.03), 'interconnect')
    assert roof.tokens_per_second == pytest.approx(8_000 / 0.03)
    assert roof.mfu == pytest.approx(8e12 / 8 / 1e14 / 0.03)


def test_what_is_sent_alone_and_the_update_add_to_the_products():
    chip = dataclasses.replace(
        CHIPS['v5e'], flops=1e14, memory_bandwidth=1e12, link_bandwidth=5e10, dimensions=2
    )
    # In one of the two dimensions that fsdp lies over, hence with two links of four.
    scatter = Traffic('reduce-scatter', ('fsdp',), 1, 'bf16', 1, 10**9, 10**9, 8 * 10**8)
    roof = roofline(dataclasses.replace(STEP, collectives=(scatter,)), chip)
    assert roof.links == pytest.approx({'fsdp': 1e9 / 2e11})
    assert roof.alone == pytest.approx(8e8 / 1e11)
    assert roof.update == pytest.approx(0.001)
    assert (roof.seconds, roof.bound_by) == (pytest.approx(0.0125 + 0.008 + 0.001), 'compute')
    more = dataclasses.replace(scatter, wire=4 * 10**9, alone=2 * 10**9)
    roof = roofline(dataclasses.replace(STEP, collectives=(more,)), chip)
    assert (roof.seconds, roof.bound_by) == (pytest.approx(0.0125 + 0.02 + 0.001), 'interconnect')


def test_steps_go_through_json():
    import json

    assert Step.from_dict(json.loads(json.dumps(STEP.to_dict()))) == STEP
