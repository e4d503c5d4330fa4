"""The least time a step can take on a chip: by its products, its memory, and its links.

Williams et al. 2009, with a third roof for the interconnect. Each is a lower bound of its own, and so is the
largest of them. What the compiled program sends while it computes nothing adds to the time of its products,
and so does the update: it needs the norm of all gradients, so that no product is left to run beside it.
"""

from __future__ import annotations

import dataclasses

from parallel.chips import Chip
from planning import collectives
from planning.step import Step


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step, and what follows from the largest of them."""

    compute: float
    memory: float
    memory_as_compiled: float  # by the bytes of the compiled program, of which caches may save some
    links: dict[str, float]  # by mesh axes, such as 'fsdp' or 'data+fsdp'
    alone: float  # for what is sent, as compiled, while nothing is computed
    update: float  # for what the update reads and writes
    tokens: int
    model_seconds: float  # for the model's operations alone

    @property
    def interconnect(self) -> float:
        """Seconds of the busiest mesh axis."""
        return max(self.links.values(), default=0.0)

    @property
    def seconds(self) -> float:
        """The least time of a step."""
        return max(self.compute + self.alone + self.update, self.memory, self.interconnect)

    @property
    def without_overlap(self) -> float:
        """The time of a step in which products, memory and links are busy one after another."""
        return self.compute + self.memory + sum(self.links.values())

    @property
    def tokens_per_second(self) -> float:
        """Tokens of a step in its least time."""
        return self.tokens / self.seconds

    @property
    def mfu(self) -> float:
        """The model's operations in the least time, of what the chips could do."""
        return self.model_seconds / self.seconds

    @property
    def bound_by(self) -> str:
        """Which roof is the lowest, or takes the most of a sum."""
        if self.seconds == self.memory:
            return 'memory'
        if self.seconds == self.interconnect:
            return 'interconnect'
        times = {'compute': self.compute, 'interconnect': self.alone, 'memory': self.update}
        return max(times, key=lambda name: times[name])


def roofline(step: Step, chip: Chip) -> Roofline:
    """Returns the bounds of a compiled step."""
    devices = 1
    for size in step.mesh.values():
        devices *= size
    links: dict[str, float] = {}
    alone = 0.0
    for traffic in step.collectives:
        name = '+'.join(traffic.axes)
        if traffic.axes == (collectives.SLICES,):
            whole = own = chip.network_bandwidth
        else:  # other collectives may use the axes' other links at the same time
            whole = chip.axis_bandwidth(
                _dimensions(sum(step.rings.get(axis, 1) for axis in traffic.axes), chip)
            )
            own = chip.axis_bandwidth(_dimensions(traffic.dimensions, chip))
        links[name] = links.get(name, 0.0) + traffic.wire / whole
        alone += traffic.alone / own
    return Roofline(
        compute=step.flops / devices / chip.flops,
        memory=step.least_moved / chip.memory_bandwidth,
        memory_as_compiled=step.moved / chip.memory_bandwidth,
        links=links,
        alone=alone,
        update=step.updated / chip.memory_bandwidth,
        tokens=step.tokens,
        model_seconds=step.model_flops / devices / chip.flops,
    )


def _dimensions(rings: int, chip: Chip) -> int:
    return min(rings, chip.dimensions or 1)
