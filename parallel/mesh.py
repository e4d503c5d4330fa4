"""The mesh of devices, and which part of a batch each process must read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from configs.errors import UserError
from parallel import rings

AXES = ('data', 'fsdp', 'tensor', 'context')
BATCH_SPEC = P(('data', 'fsdp'), 'context')  # of the [B, L] arrays of a batch
ROW_SPEC = P(('data', 'fsdp'))  # of what is kept per row of the batch


def make_mesh(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Lays devices (None: all) out as `data` × `fsdp` × `tensor` × `context`; one -1 takes what remains.

    Of several slices of TPUs, which a slower network joins, `data` lies over them outermost. Raises UserError
    when the axes do not multiply to the number of devices.
    """
    sizes = {axis: shape[axis] for axis in AXES}
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    known = math.prod(size for size in sizes.values() if size != -1)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    text = ' × '.join(f'{axis}={size}' for axis, size in sizes.items())
    if len(open_axes) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise UserError(f'mesh {text} is not a layout: sizes are at least 1, and at most one may be -1.')
    if count % known or (not open_axes and known != count):
        raise UserError(
            f'mesh {text} does not fit {count} devices; make the product {count}, or one axis -1.'
        )
    if open_axes:
        sizes[open_axes[0]] = count // known
    slices = num_slices(devices)
    if sizes['data'] % slices:
        raise UserError(
            f'mesh {text} lies over {slices} slices, and only data can go over the network between them; '
            f'make data a multiple of {slices}.'
        )
    layout = _lay_out(sizes, devices, slices)
    mesh = Mesh(layout, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    rings.register(mesh)
    return mesh


def num_slices(devices: Sequence[Any]) -> int:
    """Returns how many slices of TPUs the devices are of; of others 1."""
    return len({getattr(device, 'slice_index', None) or 0 for device in devices})


def _lay_out(sizes: Mapping[str, int], devices: Sequence[Any], slices: int) -> np.ndarray:
    if slices == 1:
        shape = tuple(sizes.values())
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within = {axis: size // slices if axis == 'data' else size for axis, size in sizes.items()}
    between = [slices if axis == 'data' else 1 for axis in sizes]
    return mesh_utils.create_hybrid_device_mesh(
        tuple(within.values()), between, devices, allow_split_physical_axes=True
    )


def check_batch(mesh: Mesh, config: ConfigDict) -> None:
    """Raises UserError when the batches of an experiment cannot be cut evenly over the mesh."""
    batch_size, parts, length = config.batch_size, config.grad_accumulation, config.sequence_length
    shards = mesh.shape['data'] * mesh.shape['fsdp']
    if (batch_size // parts) % shards:
        in_parts = f' in grad_accumulation={parts} parts' if parts > 1 else ''
        raise UserError(
            f'batch_size={batch_size}{in_parts} does not divide over {shards} data shards '
            f'(mesh data={mesh.shape["data"]} × fsdp={mesh.shape["fsdp"]}); '
            f'use a multiple of {shards * parts}.'
        )
    if length % mesh.shape['context']:
        raise UserError(
            f'sequence_length={length} does not divide over mesh context={mesh.shape["context"]}; '
            f'use a multiple of it.'
        )


def fitting_batch(mesh: Mesh, config: ConfigDict) -> int:
    """Returns the batch size rounded up to one that can be cut evenly over the mesh, in its parts."""
    multiple = mesh.shape['data'] * mesh.shape['fsdp'] * config.grad_accumulation
    return -(-config.batch_size // multiple) * multiple


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """Returns the rows of the global batch that this process's devices hold."""
    indices = NamedSharding(mesh, ROW_SPEC).addressable_devices_indices_map((batch_size,))
    spans = [index[0].indices(batch_size)[:2] for index in indices.values() if index is not None]
    return slice(min(start for start, _ in spans), max(stop for _, stop in spans))


def batch_sharding(mesh: Mesh, shape: Sequence[int], spec: P = BATCH_SPEC) -> NamedSharding:
    """Returns how a batch's array [B, …] is cut: by `spec`; after B, what does not divide stays whole."""
    axes = list(spec[: len(shape)])
    for dimension, axis in enumerate(axes[1:], 1):
        if axis and shape[dimension] % mesh.shape[axis]:
            axes[dimension] = None
    return NamedSharding(mesh, P(*axes))


def global_array(
    mesh: Mesh, local: np.ndarray, rows: slice, batch_size: int, spec: P = BATCH_SPEC
) -> jax.Array:
    """Joins every process's `local` rows [R, …] into a batch's array [B, …], laid out by `batch_sharding`."""

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None, 'every device holds a part'
        start, stop, _ = index[0].indices(batch_size)
        return local[(slice(start - rows.start, stop - rows.start), *index[1:])]

    shape = (batch_size, *local.shape[1:])
    return jax.make_array_from_callback(shape, batch_sharding(mesh, shape, spec), part)


def local_part(array: jax.Array, rows: slice) -> np.ndarray:
    """Returns this process's `rows` of a global array that `global_array` joined, on the host."""
    local = np.zeros((rows.stop - rows.start, *array.shape[1:]), array.dtype)
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(array.shape[0])
        local[(slice(start - rows.start, stop - rows.start), *shard.index[1:])] = shard.data
    return local
