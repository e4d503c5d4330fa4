"""Rows of a table of vectors by their ids.

B batch · L length · D embed · V rows of the table
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from model.held import Held
from parallel.collectives import gather, sum_into_shards


def lookup(
    table_VD: jax.Array | Held, ids: jax.Array, axis: str, dtype: Any = jnp.float32, blocks: int = 1
) -> jax.Array:
    """Returns the vectors of ids, [*ids.shape, D] in `dtype`.

    The table is rounded and its width gathered first: a look-up in a table cut along D would give a result
    that is cut along D and must be laid out anew along B. The gradient is summed in float32, over all that
    look up one row, and over devices into its shards in the table's dtype.

    Args:
      table_VD: floats; or held for a loop, without a gradient.
      ids: int32 [B], [B, L] or more.
      axis: logical axis of the rows.
      blocks: equal parts of the rows, of which the gradient is made and summed one at a time.
    """
    if isinstance(table_VD, Held):
        return jnp.take(table_VD.values, ids, axis=0).astype(dtype)
    return _lookup(table_VD, ids, axis, jnp.dtype(dtype), blocks)


def _primal(table_VD, ids, axis, dtype, blocks):
    return jnp.take(gather(table_VD.astype(dtype), (axis, 'embed')), ids, axis=0)


_lookup = jax.custom_vjp(_primal, nondiff_argnums=(2, 3, 4))


def _forward(table_VD, ids, axis, dtype, blocks):
    return _primal(table_VD, ids, axis, dtype, blocks), (table_VD, ids)


def _backward(axis, dtype, blocks, residuals, by_vectors):
    table_VD, ids = residuals
    rows, width = table_VD.shape
    count = rows // blocks

    def of_block(first):
        def local(ids, by_vectors):
            zeros = jnp.zeros((count, width), jnp.float32)
            places = ids[..., 0] - first
            places = jnp.where(places < 0, count, places)  # a negative one would count from the end
            return zeros.at[places].add(by_vectors.astype(jnp.float32), mode='drop').astype(table_VD.dtype)

        return sum_into_shards(local, (ids[..., None], by_vectors), (axis, 'embed'))

    if blocks == 1:
        return of_block(0), None
    return jax.lax.map(of_block, count * jnp.arange(blocks)).reshape(table_VD.shape), None


_lookup.defvjp(_forward, _backward)
