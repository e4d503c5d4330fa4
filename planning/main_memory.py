"""Bytes that a compiled program reads from and writes to main memory (HBM), from its text."""

from __future__ import annotations

import re

from planning.hlo import Array, Instruction, Program

# What moves nothing: names for parts of others, control, and the ends of what was begun before.
FREE = {
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call'),
    *(
        'after-all',
        'partition-id',
        'replica-id',
        'domain',
        'opt-barrier',
        'iota',
        'async-start',
        'call-start',
    ),
}


def traffic(program: Program) -> int:
    """Returns bytes: results and operands of every instruction, each as often as it runs.

    A fused instruction counts once; of what it, or a slice, only reads or writes a part of, the part counts.
    Arrays in a TPU's own vector memory do not count. Caches of a CPU are not known here.
    """
    total = 0
    shapes = {name: {i.name: i for i in lines} for name, lines in program.computations.items()}
    for computation, instruction, times in program.executed():
        if computation in program.fused or instruction.opcode in FREE or instruction.opcode.endswith('-done'):
            continue
        total += times * _moved(program, instruction, shapes[computation])
    return total


def _moved(program: Program, instruction: Instruction, known: dict[str, Instruction]) -> int:
    operands = [known[name] for name in instruction.operands if name in known]
    if instruction.opcode == 'fusion':
        body = program.computations.get(instruction.called.get('calls', [''])[0], [])
        return _fused(instruction, operands, body)
    if instruction.opcode in ('dynamic-slice', 'slice', 'gather'):
        return 2 * _size(instruction.result)
    if instruction.opcode == 'dynamic-update-slice':
        return 2 * _size(operands[1].result) if len(operands) > 1 else 0
    return _size(instruction.result) + sum(_size(each.result) for each in operands)


def _fused(fusion: Instruction, operands: list[Instruction], body: list[Instruction]) -> int:
    by_name = {each.name: each for each in body}
    users: dict[str, list[Instruction]] = {}
    for each in body:
        for name in each.operands:
            users.setdefault(name, []).append(each)
    total = 0
    for each in body:
        number = re.match(r'(\d+)\)', each.rest)
        if each.opcode != 'parameter' or not number or int(number[1]) >= len(operands):
            continue
        total += _part_read(each, operands[int(number[1])], users)
    root = body[-1] if body else None
    if root is not None and root.opcode == 'dynamic-update-slice':
        update = by_name.get(root.operands[1])
        return total + (_size(update.result) if update and _in_memory(fusion) else 0)
    return total + _size(fusion.result)


def _part_read(parameter: Instruction, operand: Instruction, users: dict[str, list[Instruction]]) -> int:
    """Returns the bytes that a fusion reads of an operand."""
    if not _in_memory(operand):
        return 0
    readers = users.get(parameter.name, [])
    if readers and all(each.opcode in ('dynamic-slice', 'slice', 'gather') for each in readers):
        return sum(each.result[0].size for each in readers if each.result)
    if readers and all(
        each.opcode == 'dynamic-update-slice' and each.operands[:1] == [parameter.name] for each in readers
    ):
        return 0
    return _size(operand.result)


def _in_memory(instruction: Instruction) -> bool:
    return any(array.in_main_memory for array in instruction.result)


def _size(arrays: tuple[Array, ...]) -> int:
    return sum(array.size for array in arrays if array.in_main_memory)
