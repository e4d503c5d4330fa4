"""Parameters gathered for use, and their gradients summed over devices straight into shards.

Each device computes the part of a gradient that its rows and positions give. A compiler that is left to
itself sums such parts whole on every device and then keeps a shard (all-reduce and slice), which sends twice
the bytes of a reduce-scatter and holds the whole sum in memory.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import PartitionSpec

from parallel import rings, rules

Axes = tuple[str | None, ...]  # logical axes of parallel/rules.py, one per dimension
LEADING = ('batch', 'length')  # of the arrays that a gradient is summed over
PLANE = 2  # rings that TPU compilers gather over at once; over more of them they all-reduce


def gather(parameter: jax.Array, axes: Axes) -> jax.Array:
    """Returns a parameter laid out as computation takes it: whole along what only its storage is cut over."""
    at_use = tuple(rules.at_use(axis) for axis in axes)
    for dimension, (stored, used) in enumerate(zip(axes, at_use, strict=True)):
        for axis in set(rules.mesh_axes(stored)) - set(rules.mesh_axes(used)):
            if len(rings.sizes(axis)) > PLANE:
                cut: list[tuple[str, ...]] = [rules.mesh_axes(used) for used in at_use]
                whole = PartitionSpec(*cut)
                cut[dimension] = (axis,)
                # check_vma: of groups it is only known that a result differs along the axis; after all
                # stages it does not.
                parameter = jax.shard_map(
                    functools.partial(gather_along, axis=axis, dimension=dimension),
                    in_specs=PartitionSpec(*cut),
                    out_specs=whole,
                    axis_names=set(itertools.chain(*cut)),
                    check_vma=False,
                )(parameter)
    return rules.constrain(parameter, *at_use)


def sum_into_shards(
    local: Callable[..., jax.Array],
    arrays: tuple[jax.Array, ...],
    axes: Axes | None,
    trailing: tuple[Axes, ...] | None = None,
) -> jax.Array:
    """Returns local(*arrays), a sum over the arrays' leading axes, in the layout of a parameter.

    Args:
      local: a function of the arrays that sums over their leading axes, which are batch and length (or rows
        alone). Its result has the dtype in which devices send it to each other.
      arrays: [B, …] or [B, L, …].
      axes: of the result; None leaves the layout to the compiler.
      trailing: of each array, the axes behind the leading ones as they are at use, where `local` may be
        called with a device's part of them. Without it the compiler cuts them; but it gathers what is to be
        summed by groups of devices.
    """
    leading = [min(len(LEADING), array.ndim - 1) for array in arrays]
    cuts = cuts_of([array.shape[:count] for array, count in zip(arrays, leading, strict=True)])
    shared = tuple(axis for cut in cuts for axis in cut)
    if axes is None or not shared:
        return local(*arrays)
    behind = [[rules.mesh_axes(rules.at_use(axis)) for axis in its] for its in trailing or [()] * len(arrays)]
    manual = (*shared, *itertools.chain(*itertools.chain(*behind)))
    return jax.shard_map(
        lambda *parts: sum_along(local(*parts), axes, shared),
        in_specs=tuple(
            PartitionSpec(*cuts[:count], *its) for count, its in zip(leading, behind, strict=True)
        ),
        out_specs=PartitionSpec(*(_among(rules.mesh_axes(axis), manual) or None for axis in axes)),
        axis_names=set(manual),
        check_vma=False,  # as above
    )(*arrays)


def cuts_of(shapes: Sequence[tuple[int, ...]]) -> list[tuple[str, ...]]:
    """Returns the mesh axes, with several devices, that cut batch and length of arrays that begin so.

    A dimension that some array lacks, or that does not divide, is cut by none.
    """
    mesh_shape = jax.sharding.get_abstract_mesh().shape
    cuts: list[tuple[str, ...]] = []
    for dimension, name in enumerate(LEADING):
        shards = rules.num_shards(name, mesh_shape)
        even = all(len(shape) > dimension and shape[dimension] % shards == 0 for shape in shapes)
        axes = rules.mesh_axes(name) if even else ()
        cuts.append(tuple(axis for axis in axes if mesh_shape.get(axis, 1) > 1))
    return cuts


# ---- Within shard_map --------------------------------------------------------------------------------------


def gather_along(part: jax.Array, axis: str, dimension: int) -> jax.Array:
    """Joins the parts that devices along a mesh axis have of a dimension."""
    sizes = rings.sizes(axis)
    if len(sizes) <= PLANE:
        return jax.lax.all_gather(part, axis, axis=dimension, tiled=True)
    stages = (math.prod(sizes[:-PLANE]), math.prod(sizes[-PLANE:]))
    for stage in (1, 0):
        part = jax.lax.all_gather(
            part, axis, axis=dimension, tiled=True, axis_index_groups=rings.groups(stages, stage)
        )
    return part


def sum_along(total: jax.Array, axes: Axes, shared: Sequence[str]) -> jax.Array:
    """Sums over the mesh axes in `shared`, and keeps this device's shard along those that cut `axes`."""
    whole = list(shared)
    for dimension, name in enumerate(axes):
        for axis in _among(rules.mesh_axes(name), shared):
            total = _scatter(total, axis, dimension)
            whole.remove(axis)
    return jax.lax.psum(total, tuple(whole)) if whole else total


def _scatter(total: jax.Array, axis: str, dimension: int) -> jax.Array:
    """Sums over a mesh axis and keeps this device's shard, ring by ring."""
    sizes = rings.sizes(axis)
    for ring in range(len(sizes)):
        groups = rings.groups(sizes, ring) if len(sizes) > 1 else None
        total = jax.lax.psum_scatter(
            total, axis, scatter_dimension=dimension, tiled=True, axis_index_groups=groups
        )
    return total


def _among(axes: Sequence[str], shared: Sequence[str]) -> tuple[str, ...]:
    return tuple(axis for axis in axes if axis in shared)
