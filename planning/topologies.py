"""Slices of TPUs by name, such as v5e:16x16, or 2*v5e:16x16 for two of them that a network joins.

Checked, and described to the compiler without the hardware.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
from importlib import metadata
from typing import Any

from configs.errors import UserError, did_you_mean
from parallel.chips import CHIPS, Chip

# Shapes that are offered; cloud.google.com/tpu/docs, "TPU configurations" of each version.
PLANES = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
SMALL_TORI = ('1x1x1', '2x2x1', '2x2x2', '2x2x4', '2x4x4')
SIDES = (4, 8, 12, 16, 20, 24)  # of larger ones, each side no shorter than the one before
MAX_DEVICES = {'v4': 4096, 'v5p': 8960, 'tpu7x': 9216}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One slice or several alike: their name, their chip, and the sides of each in chips."""

    name: str
    version: str
    sides: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """What each device can do."""
        return CHIPS[self.version]

    @property
    def num_devices(self) -> int:
        """How many devices JAX will see."""
        return self.slices * math.prod(self.sides) * self.chip.per_chip

    def devices(self) -> list[Any]:
        """Returns descriptions of the devices, for which programs can be compiled; needs libtpu."""
        os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no metadata server off Google's cloud
        os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # no chip is taken, so several may compile
        try:
            import libtpu  # noqa: F401  # pyright: ignore
        except ImportError as error:
            raise UserError(
                f'--topology={self.name} needs the compiler in libtpu, which is not installed: pip install '
                '-r requirements-tpu.txt.'
            ) from error
        _check_version()
        from jax.experimental import topologies

        options: dict[str, Any] = {}
        if self.version == 'v4':
            options['chip_config_name'] = 'megacore'  # one device a chip, as on Cloud TPU VMs
        if math.prod(self.sides) == 1:
            options['chips_per_host_bounds'] = (1, 1, 1)
        if self.slices > 1:
            options['num_slices'] = self.slices
        return list(
            topologies.get_topology_desc(
                platform='tpu', topology_name=f'{self.version}:{"x".join(map(str, self.sides))}', **options
            ).devices
        )


def _check_version() -> None:
    """Raises UserError for a libtpu of another JAX, which may compile steps that JAX then cannot read."""
    required = next((each for each in metadata.requires('jax') or () if each.startswith('libtpu==')), '')
    wanted = re.match(r'libtpu==([\d.]+\d)', required)
    found, jax = metadata.version('libtpu'), metadata.version('jax')
    if wanted and not f'{found}.'.startswith(f'{wanted[1]}.'):
        raise UserError(
            f'libtpu {found} is not the one of jax {jax}, {wanted[1]}: pip install -r requirements-tpu.txt.'
        )


def parse(name: str) -> Topology:
    """Returns the slice that is called `name`; UserError that lists the known ones if there is none."""
    number, _, one = name.rpartition('*')
    version, _, shape = one.partition(':')
    if number and not (number.isdecimal() and int(number) > 1):
        raise UserError(f'--topology={name}: {number!r} is no number of slices; write 2*v5e:16x16.')
    if version not in CHIPS:
        raise UserError(
            f'--topology={name}: there is no TPU {version!r}.{did_you_mean(version, CHIPS)} Known are '
            f'{", ".join(CHIPS)}, each with a shape, such as v5e:16x16 or v5p:4x4x4.'
        )
    if shape not in shapes(version):
        known = shapes(version)
        listed = ', '.join(known if len(known) < 20 else [*known[:12], '…', known[-1]])
        rule = '' if CHIPS[version].dimensions == 2 else ' (sides of 4, 8, 12, …, none shorter than the last)'
        raise UserError(
            f'--topology={name}: {version} has no slice {shape!r}.{did_you_mean(shape, known)} There are '
            f'{listed}{rule}.'
        )
    known = [each for each, chip in CHIPS.items() if chip.network_bandwidth]
    if number and version not in known:
        raise UserError(
            f'--topology={name}: how fast slices of {version} send to each other is not published; plans of '
            f'several slices are made for {", ".join(known)}.'
        )
    return Topology(name, version, tuple(map(int, re.findall(r'\d+', shape))), int(number or 1))


def shapes(version: str) -> list[str]:
    """Returns the shapes of a version's slices, smallest first."""
    if CHIPS[version].dimensions == 2:
        return list(PLANES)
    tori = (
        sides
        for sides in itertools.combinations_with_replacement(SIDES, 3)
        if math.prod(sides) <= MAX_DEVICES[version]
    )
    return [*SMALL_TORI, *('x'.join(map(str, sides)) for sides in sorted(tori, key=math.prod))]
