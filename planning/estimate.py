"""What a layout would need and cost, by arithmetic alone: which of hundreds are worth a compilation.

Only an order is asked of these figures; the ones that plans report come from compiled programs.

d, f, t, c: devices along data, fsdp, tensor, context.
"""

from __future__ import annotations

import dataclasses
import math

from model.families import ModelConfig
from parallel.chips import Chip

BYTES = 2  # of an activation, and of a gathered kernel


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a step of a given batch is spread and recomputed."""

    data: int
    fsdp: int
    tensor: int
    context: int
    parts: int  # grad_accumulation
    remat: str
    vocab_blocks: int

    @property
    def mesh(self) -> dict[str, int]:
        """Devices along each axis."""
        return {'data': self.data, 'fsdp': self.fsdp, 'tensor': self.tensor, 'context': self.context}


@dataclasses.dataclass(frozen=True)
class Work:
    """What is the same in all layouts."""

    model: ModelConfig
    num_params: int
    flops: int  # of the model, in one step
    batch_size: int
    length: int
    gradient_bytes: int  # of one element, as devices send it
    ema: bool = False
    offload: bool = False  # moments lie in the hosts' memory


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes on a device, and seconds of a step."""

    memory: float
    compute: float
    waited: float  # for what tensor and context send, which layers need at once; on some chips for sums too
    links: float  # of the busiest of the other axes

    @property
    def seconds(self) -> float:
        """The least time, if what can overlap does."""
        return max(self.compute + self.waited, self.links)

    @property
    def order(self) -> tuple[float, float]:
        """What layouts are sorted by: the least time, then the time if nothing overlaps."""
        return round(self.seconds, 4), self.compute + self.waited + self.links


def estimate(layout: Layout, work: Work, chip: Chip, sides: tuple[int, ...], slices: int = 1) -> Estimate:
    """Returns what a layout needs on slices with these sides."""
    links = _links(layout, work, chip, sides, slices)
    waited = links.pop('tensor') + links.pop('context')
    if chip.sums_wait:  # one dimension of the torus at a time
        summed = layout.parts * work.num_params / layout.tensor * work.gradient_bytes
        waited += summed * _share(layout.data * layout.fsdp) / chip.axis_bandwidth(1)
    return Estimate(_memory(layout, work), _compute(layout, work, chip), waited, max(links.values()))


def _tokens(layout: Layout, work: Work) -> float:
    """Tokens that a device computes at a time."""
    rows = work.batch_size / (layout.data * layout.fsdp * layout.parts)
    return rows * work.length / layout.context


def _memory(layout: Layout, work: Work) -> float:
    model, tokens, t = work.model, _tokens(layout, work), layout.tensor
    shard = work.num_params / (layout.fsdp * t)
    state = shard * (4 + 8 * (not work.offload) + 4 * work.ema)
    # In float32 too where parts are added up, and where the update goes layer by layer.
    gradients = shard * (work.gradient_bytes + 4 * (layout.parts > 1 or work.offload))
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim / t
    hidden = (2 if model.gated_mlp else 1) * model.mlp_dim / t
    saved = {
        'full': model.embed_dim / t,
        'dots': 2 * model.embed_dim / t + heads + hidden,
        'none': 5 * model.embed_dim / t + 2 * heads + 2 * hidden,
    }[layout.remat]
    layers = model.num_layers + model.encoder_layers
    of_layer = (work.num_params - 2 * model.vocab_size * model.embed_dim) / layers / t
    at_work = tokens * BYTES * (6 * model.embed_dim + 2 * heads + 2 * hidden) + 2 * BYTES * of_layer
    if model.attention == 'xla' and layout.context == 1:
        at_work += 8 * tokens * work.length * model.num_heads / t
    vocab = model.vocab_size / (t * layout.vocab_blocks)
    loss = 8 * tokens * vocab + 2 * BYTES * model.embed_dim * vocab + 4 * tokens * model.embed_dim
    return state + gradients + layers * saved * tokens * BYTES + max(at_work, loss)


def _compute(layout: Layout, work: Work, chip: Chip) -> float:
    devices = math.prod(layout.mesh.values())
    again = {'none': 0.0, 'dots': 0.05, 'full': 1 / 3}[layout.remat]
    return work.flops * (1 + again) / devices / chip.flops


def _links(layout: Layout, work: Work, chip: Chip, sides: tuple[int, ...], slices: int) -> dict[str, float]:
    """Returns the seconds in which each mesh axis sends what it must, and slices to each other."""
    model, tokens, t = work.model, _tokens(layout, work), layout.tensor
    layers = model.num_layers + model.encoder_layers
    matrices = work.num_params / t
    again = layout.remat == 'full'
    of_keys = 2 * model.num_kv_heads * model.head_dim / t * BYTES * tokens * layout.context
    sums = layout.parts * 2 * matrices / layout.fsdp * work.gradient_bytes
    sent = {
        'fsdp': layout.parts * matrices * (2 * BYTES + work.gradient_bytes) * _share(layout.fsdp),
        'data': sums * _share(layout.data // slices),
        'tensor': layout.parts * layers * (4 + 2 * again) * 2 * tokens * model.embed_dim * BYTES * _share(t),
        'context': layout.parts * layers * (2 + again) * of_keys * _share(layout.context),
    }
    seconds = {
        axis: wire / chip.axis_bandwidth(torus_dimensions(layout.mesh[axis], sides))
        for axis, wire in sent.items()
    }
    if slices > 1:  # each device sends its share of what is summed within its slice
        seconds['slices'] = sums * _share(slices) / (layout.data // slices) / chip.network_bandwidth
    return seconds


def _share(devices: int) -> float:
    return (devices - 1) / devices


def torus_dimensions(devices: int, sides: tuple[int, ...]) -> int:
    """Returns the fewest sides of a torus that so many devices can lie along."""
    reached, used = 1, 0
    for side in sorted(sides, reverse=True):
        if reached >= devices:
            break
        reached, used = reached * side, used + 1
    return max(used, 1)
