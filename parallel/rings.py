"""Which devices along a mesh axis are neighbours in hardware.

TPUs are wired as a torus, so a mesh axis may be laid over several of its dimensions. A collective over
such an axis can be taken ring by ring, one dimension after another, for the same bytes on the wire. It must
be, where the compiler has nothing better for the whole axis than an all-reduce (docs/log.md).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

# Of each mesh that is in use. While a program is traced, only the mesh's sizes are known, not its devices.
_SIZES: dict[tuple[tuple[str, int], ...], dict[str, tuple[int, ...]]] = {}


def register(mesh: Mesh) -> None:
    """Remembers how the axes of `mesh` lie in hardware, for the programs that are traced under it."""
    _SIZES[tuple(mesh.shape.items())] = {axis: find(mesh, axis) for axis in mesh.axis_names}


def sizes(axis: str) -> tuple[int, ...]:
    """Returns the sizes of the rings that make up an axis of the mesh that is set, outermost first."""
    shape = jax.sharding.get_abstract_mesh().shape
    known = _SIZES.get(tuple(shape.items()), {})
    return known.get(axis, (shape.get(axis, 1),))


def find(mesh: Mesh, axis: str) -> tuple[int, ...]:
    """Returns the sizes of the rings along an axis of a mesh; a single one for hardware without a torus."""
    index: list[Any] = [0] * mesh.devices.ndim
    index[mesh.axis_names.index(axis)] = slice(None)
    devices = list(mesh.devices[tuple(index)])
    if not hasattr(devices[0], 'coords'):
        return (len(devices),)
    places = np.array([[getattr(d, 'slice_index', 0) or 0, *d.coords, d.core_on_chip] for d in devices])
    return _rings(places)


def _rings(places: np.ndarray) -> tuple[int, ...]:
    """Returns the ring sizes of devices at `places` [devices, dimensions]."""
    count = len(places)
    inner = max(
        size
        for size in range(1, count + 1)
        if count % size == 0 and (np.ptp(places[:size], axis=0) > 0).sum() <= 1
    )
    if inner in (1, count):
        return (count,)
    blocks = places.reshape(count // inner, inner, -1)
    if not (np.diff(blocks, axis=0).std(axis=1) == 0).all():  # blocks are no copies of one another
        return (count,)
    return (*_rings(blocks[:, 0]), inner)


def groups(ring_sizes: tuple[int, ...], ring: int) -> list[list[int]]:
    """Returns the groups of indices along an axis that differ only in their place in ring number `ring`."""
    order = np.arange(math.prod(ring_sizes)).reshape(ring_sizes)
    return np.moveaxis(order, ring, -1).reshape(-1, ring_sizes[ring]).tolist()
