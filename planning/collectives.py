"""What devices send each other in one run of a compiled program, by kind and mesh axis.

Payload is the size of a collective's whole array: what an all-gather gives, a reduce-scatter takes, an
all-reduce does both with. On the wire is what each of n devices sends in a ring (Thakur et al. 2005, section
4): (n − 1)/n of the payload, twice that of an all-reduce, all of a permutation. What slices of TPUs send each
other over their network, the compiler hands to the runtime, as sends of what is to be summed over them.

A collective is alone when, in the order in which the program runs, no work stands between its start and its
end: while it is sent, the device waits.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from planning.hlo import Instruction, Program

SLICES = 'slices'  # stands for a mesh axis in what slices send each other
SUM_OVER_SLICES = '_xla_megascale_transfer_type="ALL_REDUCE"'
KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
WORK = {'fusion', 'dot', 'convolution', 'custom-call', 'while', 'call'}


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of a kind, dtype and set of mesh axes in one step, on one device."""

    kind: str
    axes: tuple[str, ...]
    dimensions: int  # of the torus along which they go, which may be fewer than the axes lie over
    dtype: str
    count: int
    payload: int  # bytes
    wire: int  # bytes
    alone: int  # bytes of the wire's that are sent while nothing is computed


def measure(
    program: Program, mesh_shape: Mapping[str, int], rings: Mapping[str, tuple[int, ...]], slices: int = 1
) -> list[Traffic]:
    """Returns the traffic of a program, largest first.

    Args:
      program: parsed HLO, in the order in which it runs.
      mesh_shape: mesh axis → devices, in the order in which devices are numbered.
      rings: mesh axis → sizes of the rings of hardware that make it up, outermost first.
      slices: of TPUs, which a network joins.
    """
    counts: Counter[tuple[str, tuple[str, ...], int, str]] = Counter()
    payloads, wires, alone = counts.copy(), counts.copy(), counts.copy()
    seen: set[tuple[str, ...]] = set()
    scatters, overlapped = _scatter_fusions(program), _overlapped(program)
    for computation, instruction, times in program.executed():
        kind = instruction.opcode.removesuffix('-start')
        if kind == 'send' and SUM_OVER_SLICES in instruction.rest:
            size, dtype = instruction.result[0].size * times, instruction.result[0].dtype
            key = ('all-reduce', (SLICES,), 1, dtype)
            counts[key] += times
            payloads[key] += size
            wires[key] += round(2 * size * (slices - 1) / slices)
        if kind not in KINDS or instruction.opcode.endswith('-done'):
            continue
        # One gather that is overlapped with several products stands in the text once for each.
        chain = re.search(r'chain_id="(\d+)"', instruction.rest)
        if chain:
            channel = re.search(r'channel_id=(\d+)', instruction.rest)
            mark = (kind, chain[1], channel[1] if channel else '')
            if mark in seen:
                continue
            seen.add(mark)
        kind = 'reduce-scatter' if computation in scatters else kind
        group = _group(instruction, mesh_shape)
        if len(group) < 2:
            continue
        payload = _payload(instruction, kind, len(group), computation in scatters) * times
        dtype = instruction.result[0].dtype if instruction.result else ''
        key = (kind, *_axes(group, mesh_shape, rings), dtype)
        counts[key] += times
        payloads[key] += payload
        share = 1.0 if kind == 'collective-permute' else (len(group) - 1) / len(group)
        wire = round(payload * share * (2 if kind == 'all-reduce' else 1))
        wires[key] += wire
        if not chain and (computation, instruction.name) not in overlapped:
            alone[key] += wire
    traffic = [Traffic(*key, counts[key], payloads[key], wires[key], alone[key]) for key in counts]
    return sorted(traffic, key=lambda each: -each.wire)


def _overlapped(program: Program) -> set[tuple[str, str]]:
    """Returns (computation, instruction) of what is started and ended with work between."""
    found = set()
    for name in program.runs:
        lines = program.computations[name]
        for first, start in enumerate(lines):
            if not start.opcode.endswith('-start'):
                continue
            for line in lines[first + 1 :]:
                if line.opcode in WORK:
                    found.add((name, start.name))
                    for called in itertools.chain(*start.called.values()):
                        found |= {(called, each.name) for each in program.computations.get(called, [])}
                    break
                if line.opcode.endswith('-done') and start.name in line.operands:
                    break
    return found


def _scatter_fusions(program: Program) -> set[str]:
    """Returns the computations by which TPU compilers write a reduce-scatter: an all-reduce and its slice."""
    return {name for name in program.fused if name.startswith('all-reduce-scatter')}


def _payload(instruction: Instruction, kind: str, devices: int, fused: bool) -> int:
    """Returns the bytes of a collective's whole array."""
    arrays = instruction.result
    if instruction.opcode.endswith('-start') and kind != 'all-reduce' and len(arrays) > 1:
        # (operands, results, and of a permutation two flags)
        arrays = arrays[1:2] if kind == 'collective-permute' else arrays[len(arrays) // 2 :]
    size = sum(array.size for array in arrays)
    return size * devices if kind == 'reduce-scatter' and not fused else size


def _group(instruction: Instruction, mesh_shape: Mapping[str, int]) -> list[int]:
    """Returns the devices of the collective's first group, numbered as in the mesh; of a permutation all
    that a cycle visits."""
    text = instruction.rest
    pairs = re.search(r'source_target_pairs=\{(\{.*?\})\}', text)
    if pairs:
        edges = [tuple(map(int, pair.split(','))) for pair in re.findall(r'\{([\d,]+)\}', pairs[1])]
        return sorted({edges[0][0], edges[0][1]}) if edges else []
    listed = re.search(r'replica_groups=\{\{([\d,]*)\}', text)
    if listed:
        return [int(n) for n in listed[1].split(',') if n]
    tiles = re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text)
    if tiles:
        return _iota(tiles[2], tiles[3]).reshape(_numbers(tiles[1]))[0].tolist()
    by_mesh = re.search(
        r'replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? *\{(.*?)\}', text
    )
    if by_mesh:
        axes = re.findall(r"'(\w+)'=(\d+)", by_mesh[1])
        shape = [int(size) for _, size in axes]
        ids = _iota(by_mesh[2], by_mesh[3]) if by_mesh[2] else np.arange(math.prod(shape))
        chosen = re.findall(r"'(\w+)'", by_mesh[4])
        index = tuple(slice(None) if name in chosen else 0 for name, _ in axes)
        return np.ravel(ids.reshape(shape)[index]).tolist()
    return list(range(math.prod(mesh_shape.values())))


def _iota(shape: str, order: str | None) -> np.ndarray:
    sizes = _numbers(shape)
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return np.ravel(ids.transpose(_numbers(order)) if order else ids)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(','))


def _axes(
    group: Sequence[int], mesh_shape: Mapping[str, int], rings: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[str, ...], int]:
    """Returns the mesh axes along which the devices of a group differ, and how many rings of these axes."""
    sizes = [rings.get(axis, (size,)) for axis, size in mesh_shape.items()]
    places = np.array(np.unravel_index(np.array(group), tuple(itertools.chain(*sizes))))
    differ = (places.min(axis=1) != places.max(axis=1)).tolist()
    of_ring = [axis for axis, its in zip(mesh_shape, sizes, strict=True) for _ in its]
    return tuple(dict.fromkeys(itertools.compress(of_ring, differ))), sum(differ)
