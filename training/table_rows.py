"""A training step that reads and writes only those rows of tables that its batch looks up.

A table of words has 10⁵ rows, of which a batch meets some thousands: to go over all of it for the gradient,
the optimizer and the new parameters costs several times what the batch does (docs/log.md).

An objective that offers this has LOOKUPS, {entry of the batch that is ids: names of the tables}. Its loss
takes, in place of a table, {entry: vectors [*ids.shape, D]}.

P look-ups of a batch, of which several may be of one row · V rows of a table · D width
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from training.state import TrainState

Batch = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
ROW_BY_ROW = ('sgd', 'adagrad')  # optimizers that leave a row without a gradient as it is
NO_TABLE = -1


def suffice(objective: ModuleType, config: ConfigDict, state: TrainState) -> bool:
    """Returns whether a step can go by rows; asked while it is traced, with the mesh in use.

    A moving average changes all rows. Devices that share tables sum whole gradients into their shards
    (parallel/collectives.py), and parts of a batch share none of their look-ups.
    """
    return (
        hasattr(objective, 'LOOKUPS')
        and config.optimizer.name in ROW_BY_ROW
        and config.grad_accumulation == 1
        and jax.sharding.get_abstract_mesh().size <= 1
        and state.ema_params is None
        and state.frozen is None
    )


def objective_on_rows(objective: ModuleType) -> Any:
    """Returns an objective whose parameters are small tables, one row a look-up, as `step` makes them."""

    def loss(model: Any, params: Any, batch: Batch, **options: Any):
        vectors = {}
        for table, small in params.items():
            entries = [entry for entry, tables in objective.LOOKUPS.items() if table in tables]
            found = _vectors(small, [batch[entry] for entry in entries])
            vectors[table] = dict(zip(entries, found, strict=True))
        return objective.loss(model, vectors, batch, **options)

    return SimpleNamespace(loss=loss, rescale=objective.rescale)


def step(
    inner: Step,
    lookups: Mapping[str, tuple[str, ...]],
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Returns inner(state, batch), a step of `objective_on_rows`, over small tables and ids of their rows.

    Small tables have a row for each look-up, in the order of LOOKUPS. Of those that are of one row, the first
    stands for all: ids are its number, gradients are summed there, and it alone is written back.
    """
    rows = jax.tree.leaves(state.params)[0].shape[0]
    ids_P = jnp.concatenate([batch[entry].ravel() for entry in lookups])
    places_P = jnp.arange(ids_P.size, dtype=jnp.int32)
    first_P = jnp.full(rows, ids_P.size, jnp.int32).at[ids_P].min(places_P)[ids_P]
    written_P = jnp.where(first_P == places_P, ids_P, rows)  # past the end: dropped

    small_batch, ends, end = dict(batch), {}, 0
    for entry, tables in lookups.items():
        start, end = end, end + batch[entry].size
        small_batch[entry] = first_P[start:end].reshape(batch[entry].shape)
        # No first look-up is in a later entry, so that a table needs none of those.
        ends |= dict.fromkeys(tables, end)
    ends = (
        ends,
        optax.tree.map_params(
            optimizer, lambda _, end: end, state.opt_state, ends, transform_non_params=lambda _: NO_TABLE
        ),
    )

    def take(table: jax.Array, end: int) -> jax.Array:
        return table if end == NO_TABLE else table.at[ids_P[:end]].get(mode='promise_in_bounds')

    def put(table: jax.Array, small: jax.Array, end: int) -> jax.Array:
        if end == NO_TABLE:
            return small
        return table.at[written_P[:end]].set(small, mode='drop', unique_indices=True)

    whole = state.params, state.opt_state
    params, opt_state = jax.tree.map(take, whole, ends)
    new, metrics = inner(state._replace(params=params, opt_state=opt_state), small_batch)
    params, opt_state = jax.tree.map(put, whole, (new.params, new.opt_state), ends)
    return new._replace(params=params, opt_state=opt_state), metrics


@jax.custom_vjp
def _vectors(small_PD: jax.Array, ids: list[jax.Array]) -> list[jax.Array]:
    """Returns the look-ups of each entry, [*ids.shape, D]; their gradients are summed at the ids."""
    ends = list(itertools.accumulate(of_entry.size for of_entry in ids))
    parts = jnp.split(small_PD, ends[:-1])
    return [part.reshape(*of_entry.shape, *part.shape[1:]) for part, of_entry in zip(parts, ids, strict=True)]


def _sums_at_ids(residuals: Any, by_vectors: list[jax.Array]) -> tuple[jax.Array, None]:
    small_PD, ids = residuals
    total = jnp.zeros_like(small_PD)
    for of_entry, gradient in zip(ids, by_vectors, strict=True):
        flat = gradient.reshape(-1, *small_PD.shape[1:])
        total = total.at[of_entry.ravel()].add(flat, mode='promise_in_bounds')
    return total, None


_vectors.defvjp(lambda small_PD, ids: (_vectors(small_PD, ids), (small_PD, ids)), _sums_at_ids)
