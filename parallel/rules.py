"""The one table of layouts: which mesh axes share each logical axis.

Model code names the axes of its arrays (`embed`, `heads`, `length`, …); this table says over
which axes of the device mesh (`data`, `fsdp`, `tensor`, `context`) each is cut. A new layout
is a changed row here, and nothing in the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, PartitionSpec

from configs.errors import UserError

MeshAxes = str | tuple[str, ...] | None

LOGICAL_RULES: tuple[tuple[str, MeshAxes], ...] = (
    # Parameters: `fsdp` cuts the residual width and gathers it at use; `tensor` cuts heads,
    # hidden units and vocabulary, which stay cut during the computation.
    ('layers', None),
    ('position', None),
    ('type', None),
    ('bucket', None),
    ('norm', None),
    ('rank', None),
    ('head_dim', None),
    ('embed', 'fsdp'),
    ('heads', 'tensor'),
    ('kv_heads', 'tensor'),
    ('mlp', 'tensor'),
    ('vocab', 'tensor'),
    # Activations: sequences over `data` and `fsdp`, positions over `context`. Each device holds
    # the queries of its positions and gathers the keys and values of all (`key_length`). Between blocks,
    # where nothing is cut by heads or hidden units, `tensor` cuts positions too (Korthikanti et al. 2022).
    ('batch', ('data', 'fsdp')),
    ('length', 'context'),
    ('residual_length', ('context', 'tensor')),
    ('key_length', None),
    ('activation_embed', None),
    ('activation_heads', 'tensor'),
    ('activation_kv_heads', 'tensor'),
    ('activation_mlp', 'tensor'),
    ('activation_vocab', 'tensor'),
)

_RULES: dict[str, MeshAxes] = dict(LOGICAL_RULES)


def mesh_axes(logical_axis: str | None) -> tuple[str, ...]:
    """Returns the mesh axes that cut `logical_axis`; KeyError if the table has no such row."""
    axes = _RULES[logical_axis] if logical_axis is not None else None
    return (axes,) if isinstance(axes, str) else axes or ()


def at_use(logical_axis: str | None) -> str | None:
    """Returns the axis as which computation takes one of a parameter's: the width is gathered for it."""
    return 'activation_embed' if logical_axis == 'embed' else logical_axis


def num_shards(logical_axis: str | None, mesh_shape: Mapping[str, int] | None = None) -> int:
    """Returns into how many parts an axis is cut; `mesh_shape` None: by the mesh that is set, if any."""
    if mesh_shape is None:
        mesh_shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(mesh_shape.get(axis, 1) for axis in mesh_axes(logical_axis))


def partition_spec(logical_axes: tuple[str | None, ...]) -> PartitionSpec:
    """Returns the layout of an array whose dimensions have these logical axes (None: whole)."""
    return PartitionSpec(*(mesh_axes(axis) or None for axis in logical_axes))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Asks the compiler to lay out `x` by the table; does nothing without a mesh (`jax.set_mesh`).

    A dimension that does not divide over its devices, such as a batch of one prompt, stays
    whole. Sizes that must divide are refused beforehand, by `check_divides`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = []
    for size, axis in zip(x.shape, logical_axes, strict=True):
        spec.append(mesh_axes(axis) or None if size % num_shards(axis) == 0 else None)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def shardings(boxed: Any, mesh: Mesh) -> Any:
    """Returns the NamedShardings of a tree whose leaves are boxed with their logical axes.

    `boxed` is what `jax.eval_shape(model.init, …)` gives, or anything made from it by
    `jax.tree.map`, such as a state with its optimizer's moments; leaves without a box stay whole.
    """
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, LOGICAL_RULES)


def check_divides(sizes: Mapping[str, tuple[str, int]], mesh_shape: Mapping[str, int]) -> None:
    """Raises UserError if a size does not divide over the devices that share its axis.

    Args:
      sizes: config key → (logical axis, size), as in {'model.num_kv_heads': ('kv_heads', 2)}.
      mesh_shape: mesh axis → devices along it.
    """
    for key, (logical_axis, size) in sizes.items():
        shards = num_shards(logical_axis, mesh_shape)
        if size % shards:
            factors = ' × '.join(f'{axis}={mesh_shape[axis]}' for axis in mesh_axes(logical_axis))
            raise UserError(
                f'{key}={size} does not divide over {shards} devices (mesh {factors}); '
                f'use a multiple of {shards}, or another mesh.'
            )
