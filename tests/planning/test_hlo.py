# ruff: noqa: E501 (lines of programs are long)
"""Compiled programs read from their text: excerpts of TPU programs, and a program compiled here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from planning import hlo, main_memory

# Shortened from a training step that libtpu compiled for v5e:16x16.
LOOP = """
HloModule jit_train_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], bf16[1,2048,4096])) -> (s32[], bf16[1,2048,4096]) {
  %p = (s32[]{:T(128)}, bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p), index=1
  %inner = (s32[], bf16[1,2048,4096]) while(%p), condition=%inner_condition, body=%inner_body
  %all-reduce.1 = bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)} all-reduce(%x), channel_id=3, replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[]{:T(128)}, bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)S(1)}) tuple(%i, %all-reduce.1)
}

%condition (p.1: (s32[], bf16[1,2048,4096])) -> pred[] {
  %p.1 = (s32[]{:T(128)}, bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %constant.5 = s32[]{:T(128)} constant(32)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %constant.5), direction=LT
}

%inner_body (p.2: (s32[], bf16[1,2048,4096])) -> (s32[], bf16[1,2048,4096]) {
  %p.2 = (s32[], bf16[1,2048,4096]) parameter(0)
  ROOT %copy = (s32[], bf16[1,2048,4096]) copy(%p.2)
}

%compared (a: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %constant.9 = s32[] constant(4)
  ROOT %less.2 = pred[] compare(%a, %constant.9), direction=LT
}

%inner_condition (p.3: (s32[], bf16[1,2048,4096])) -> pred[] {
  %p.3 = (s32[], bf16[1,2048,4096]) parameter(0)
  %i.3 = s32[] get-tuple-element(%p.3), index=0
  ROOT %fused = pred[] fusion(%i.3), kind=kLoop, calls=%compared
}

ENTRY %main (a.1: (s32[], bf16[1,2048,4096])) -> (s32[], bf16[1,2048,4096]) {
  %a.1 = (s32[], bf16[1,2048,4096]) parameter(0)
  ROOT %while = (s32[]{:T(128)}, /*index=1*/bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)S(1)}) while(%a.1), condition=%condition, body=%body
}
"""
READING_A_PART = """
%part (stack: f32[32,128,128], i: s32[]) -> f32[128,128] {
  %stack = f32[32,128,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %slice = f32[1,128,128]{2,1,0} dynamic-slice(%stack, %i), dynamic_slice_sizes={1,128,128}
  ROOT %flat = f32[128,128]{1,0} bitcast(%slice)
}

%write (stack.1: f32[32,128,128], row: f32[1,128,128], i.1: s32[]) -> f32[32,128,128] {
  %stack.1 = f32[32,128,128]{2,1,0} parameter(0)
  %row = f32[1,128,128]{2,1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  ROOT %update = f32[32,128,128]{2,1,0} dynamic-update-slice(%stack.1, %row, %i.1)
}

ENTRY %main (a: f32[32,128,128], i.2: s32[], b: f32[1,128,128]) -> f32[32,128,128] {
  %a = f32[32,128,128]{2,1,0} parameter(0)
  %i.2 = s32[]{:S(6)} parameter(1)
  %b = f32[1,128,128]{2,1,0:S(1)} parameter(2)
  %read = f32[128,128]{1,0} fusion(%a, %i.2), kind=kLoop, calls=%part
  ROOT %written = f32[32,128,128]{2,1,0} fusion(%a, %b, %i.2), kind=kLoop, calls=%write
}
"""


def test_loops_run_as_often_as_their_conditions_say():
    program = hlo.parse(LOOP)
    assert {name: program.runs[name] for name in ('main', 'body', 'inner_body')} == {
        'main': 1,
        'body': 32,
        'inner_body': 32 * 4,
    }
    assert program.unknown_loops == 0
    assert 'add' not in program.runs, 'the function of a reduction is no computation of its own'


def test_a_loop_of_unknown_length_is_counted():
    program = hlo.parse(LOOP.replace('constant(4)', 'parameter(1)'))
    assert (program.runs['inner_body'], program.unknown_loops) == (32, 1)


def test_arrays_have_their_sizes_and_places():
    (reduced,) = [i for _, i, _ in hlo.parse(LOOP).executed() if i.opcode == 'all-reduce']
    assert reduced.result == (hlo.Array('bf16', (1, 2048, 4096)),)
    assert reduced.result[0].size == 2 * 2048 * 4096
    (x,) = [i for _, i, _ in hlo.parse(LOOP).executed() if i.name == 'x']
    assert not x.result[0].in_main_memory


def test_of_what_is_read_or_written_in_part_the_part_counts():
    row = 4 * 128 * 128
    # Read a row and write it; then write a row that comes from vector memory.
    assert main_memory.traffic(hlo.parse(READING_A_PART)) == 2 * row + row


@pytest.mark.parametrize('length', [1, 7])
def test_a_program_compiled_here_is_read(length):
    def run(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, length=length)[0]

    compiled = jax.jit(run).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
    program = hlo.parse(compiled.as_text())
    products = [times for _, i, times in program.executed() if i.opcode in ('dot', 'custom-call')]
    assert sum(products) == length
    assert program.unknown_loops == 0
    assert main_memory.traffic(program) >= length * 2 * 64 * 64 * 4
