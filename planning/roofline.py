"""The least time a step can take on a chip: by its products, its memory, and its links.

Williams et al. 2009, with a third roof for the interconnect. Each is a lower bound of its own, and so is the
largest of them: it is reached if all three kinds of work overlap perfectly.
"""

from __future__ import annotations

import dataclasses

from planning import collectives
from planning.chips import Chip
from planning.step import Step

WAITED = {'tensor', 'context'}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step, and what follows from the largest of them."""

    compute: float
    memory: float
    memory_as_compiled: float  # by the bytes of the compiled program, of which caches may save some
    links: dict[str, float]  # by mesh axes, such as 'fsdp' or 'data+fsdp'
    tokens_per_second: float
    mfu: float  # the model's operations in that time, of what the chips could do

    @property
    def interconnect(self) -> float:
        """Seconds of the busiest mesh axis."""
        return max(self.links.values(), default=0.0)

    @property
    def seconds(self) -> float:
        """The least time of a step."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def waiting(self) -> float:
        """The least time of a step in which products wait for what the tensor and context axes send.

        Within a layer they need it at once, while kernels and gradients can travel during other layers.
        """
        waited = sum(seconds for axes, seconds in self.links.items() if WAITED & set(axes.split('+')))
        return max(self.compute + waited, self.memory, self.interconnect)

    @property
    def bound_by(self) -> str:
        """Which roof is the lowest."""
        times = {'compute': self.compute, 'memory': self.memory, 'interconnect': self.interconnect}
        return max(times, key=lambda name: times[name])


def roofline(step: Step, chip: Chip) -> Roofline:
    """Returns the bounds of a compiled step."""
    devices = 1
    for size in step.mesh.values():
        devices *= size
    links: dict[str, float] = {}
    for traffic in step.collectives:
        dimensions = min(sum(step.rings.get(axis, 1) for axis in traffic.axes), chip.dimensions or 1)
        name = '+'.join(traffic.axes)
        between = traffic.axes == (collectives.SLICES,)
        bandwidth = chip.network_bandwidth if between else chip.axis_bandwidth(dimensions)
        links[name] = links.get(name, 0.0) + traffic.wire / bandwidth
    compute = step.flops / devices / chip.flops
    memory = step.least_moved / chip.memory_bandwidth
    seconds = max(compute, memory, max(links.values(), default=0.0))
    return Roofline(
        compute=compute,
        memory=memory,
        memory_as_compiled=step.moved / chip.memory_bandwidth,
        links=links,
        tokens_per_second=step.tokens / seconds,
        mfu=step.model_flops / devices / chip.flops / seconds,
    )
