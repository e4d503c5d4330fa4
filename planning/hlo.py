"""Compiled programs as text (HLO): their computations, and how often each runs.

Only what plans need is read. Where the text does not say how often a loop runs, and its condition does not
compare with a constant, `Program.unknown_loops` counts it, and it is taken to run once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

ITEM_BYTES = {
    **dict.fromkeys(('pred', 's8', 'u8', 'f8e4m3fn', 'f8e5m2'), 1),
    **dict.fromkeys(('bf16', 'f16', 's16', 'u16'), 2),
    **dict.fromkeys(('f32', 's32', 'u32'), 4),
    **dict.fromkeys(('f64', 's64', 'u64', 'c64'), 8),
}
_SHAPE = re.compile(r'\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|[a-z]\S*) ([a-z][\w-]*)\((.*)$')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$')
_COMMENT = re.compile(r'/\*.*?\*/')
_CALLED = re.compile(r'\b(calls|body|condition|to_apply|branch_computations)=(?:%([\w.-]+)|\{([^}]*)\})')
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result: dtype, dimensions, and whether it lies in main memory."""

    dtype: str
    dimensions: tuple[int, ...]
    in_main_memory: bool = True  # and not in a TPU's vector or scalar memory

    @property
    def size(self) -> int:
        """Bytes, without padding."""
        total = ITEM_BYTES.get(self.dtype, 0)
        for dimension in self.dimensions:
            total *= dimension
        return total


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `rest` is what follows its opening bracket."""

    name: str
    result: tuple[Array, ...]
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions that it reads."""
        depth = 1
        for end, character in enumerate(self.rest):
            depth += (character in '({[') - (character in ')}]')
            if not depth:
                return re.findall(r'%([\w.-]+)', self.rest[:end])
        return []

    @property
    def called(self) -> dict[str, list[str]]:
        """{role: computations}, such as {'body': [...], 'condition': [...]}."""
        return {
            role: [one] if one else re.findall(r'%?([\w.-]+)', several)
            for role, one, several in _CALLED.findall(self.rest)
        }


@dataclasses.dataclass
class Program:
    """Computations by name, and how often each runs in one execution of the program."""

    computations: dict[str, list[Instruction]]
    runs: dict[str, int]
    fused: set[str]  # computations that are parts of one instruction
    unknown_loops: int

    def executed(self) -> Iterator[tuple[str, Instruction, int]]:
        """Yields (computation, instruction, times it runs) of all that runs, fused parts included."""
        for name, times in self.runs.items():
            for instruction in self.computations[name]:
                yield name, instruction, times


def parse(text: str) -> Program:
    """Reads the text of a compiled program, as `compiled.as_text()` gives it."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = '', None
    for raw in text.splitlines():
        line = _COMMENT.sub('', raw)
        header = _COMPUTATION.match(line)
        if header:
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None:
            found = _INSTRUCTION.match(line)
            if found:
                current.append(Instruction(found[1], _arrays(found[2]), found[3], found[4]))
    program = Program(computations, {}, set(), 0)
    if entry:
        _count(program, entry, 1)
    return program


def _arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays of a result's type, `f32[2,3]{1,0:T(8,128)S(1)}` or a tuple of such."""
    return tuple(
        Array(dtype, tuple(int(d) for d in dimensions.split(',') if d), 'S(' not in layout)
        for dtype, dimensions, layout in _SHAPE.findall(text)
    )


def _count(program: Program, name: str, times: int) -> None:
    program.runs[name] = program.runs.get(name, 0) + times
    for instruction in program.computations[name]:
        for role, names in instruction.called.items():
            if role == 'condition' or (
                role == 'to_apply' and instruction.opcode not in ('call', 'call-start')
            ):
                continue  # conditions cost nothing, and the others are a reduction's scalar function
            repeats = times
            if role == 'body':
                count = _trip_count(program, instruction)
                program.unknown_loops += count is None
                repeats *= 1 if count is None else count
            for called in names:
                if called not in program.computations:
                    continue
                if instruction.opcode == 'fusion' or name in program.fused:
                    program.fused.add(called)
                _count(program, called, repeats)


def _trip_count(program: Program, loop: Instruction) -> int | None:
    """Returns how often a loop runs: as the text says, or by the constant its counter is compared with."""
    said = _TRIP_COUNT.search(loop.rest)
    if said:
        return int(said[1])
    condition = loop.called.get('condition', [''])[0]
    lines = list(program.computations.get(condition, []))
    for instruction in list(lines):
        for names in instruction.called.values():
            for name in names:
                lines += program.computations.get(name, [])
    constants = {}
    for instruction in lines:
        value = re.match(r'(\d+)\)', instruction.rest)
        if instruction.opcode == 'constant' and value:
            constants[instruction.name] = int(value[1])
    if any(i.opcode == 'compare' and 'direction=LT' in i.rest for i in lines) and len(constants) == 1:
        return next(iter(constants.values()))
    return None
