"""A training step that reads and writes only those rows of tables that its batch looks up.

A table of words has 10⁵ rows, of which a batch meets some thousands: to go over all of it for the gradient
and the new parameters costs several times what the batch does. Plain descent is linear in the gradient, so
that each look-up's own can be added to its row, without their sums being made first (docs/log.md).

An objective that offers this has LOOKUPS, {entry of the batch that is ids: names of the tables}. Its loss
takes, in place of a table, {entry: vectors [*ids.shape, D]}; where it is finite, so are its gradients.

P look-ups of a batch, of which several may be of one row · V rows of a table · D width
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from training.state import TrainState

Batch = dict[str, jax.Array]
Tables = Mapping[str, jax.Array]  # {table: [V, D]}
Vectors = dict[str, dict[str, jax.Array]]  # {table: {entry: [*ids.shape, D]}}


def suffice(objective: ModuleType, config: ConfigDict, state: TrainState) -> bool:
    """Returns whether a step can go by rows; asked while it is traced, with the mesh in use.

    A moving average changes all rows; clipping needs the sums' norm before any is added, which is worked out
    from the updates, and so takes a rate above 0: a warm-up begins at 0, and half a cosine comes to it before
    its end, in float32. Devices that share tables sum whole gradients into their shards
    (parallel/collectives.py), and parts of a batch share none of their look-ups.
    """
    options = config.optimizer
    return (
        hasattr(objective, 'LOOKUPS')
        and options.name == 'sgd'
        and options.learning_rate > 0
        and not options.warmup_steps
        and (options.schedule != 'cosine' or options.final_learning_rate > 0)
        and not options.clip_norm
        and config.grad_accumulation == 1
        and jax.sharding.get_abstract_mesh().size <= 1
        and state.ema_params is None
        and state.frozen is None
    )


def look_up(tables: Tables, lookups: Mapping[str, tuple[str, ...]], batch: Batch) -> Vectors:
    """Returns the vectors of every look-up."""
    return {
        name: {
            entry: table.at[batch[entry]].get(mode='promise_in_bounds')
            for entry, of_tables in lookups.items()
            if name in of_tables
        }
        for name, table in tables.items()
    }


def scaled(vectors: Vectors, factors: Tables, batch: Batch) -> Vectors:
    """Returns vectors times the factor that their row has, as [P, 1, D]; factors are {table: [V]}.

    That is the shape in which XLA's scatter takes rows, and any other would be copied to it.
    """
    return {
        name: {
            entry: vector.reshape(-1, 1, vector.shape[-1]) * factors[name][batch[entry].reshape(-1, 1, 1)]
            for entry, vector in of_table.items()
        }
        for name, of_table in vectors.items()
    }


def add(tables: Tables, vectors: Vectors, batch: Batch, where: jax.Array) -> Tables:
    """Returns the tables with each vector [P, 1, D] added to its row; as they were if `where` is false."""
    added = dict(tables)
    for name, of_table in vectors.items():
        for entry, vectors_P1D in of_table.items():
            ids_P1 = jnp.where(where, batch[entry].reshape(-1, 1), len(added[name]))  # past the end: dropped
            added[name] = added[name].at[ids_P1].add(vectors_P1D, mode='drop')
    return added


def norm_of_sums(vectors: Vectors, batch: Batch, rows: int) -> jax.Array:
    """Returns the Euclidean norm of what `add` adds to tables of V `rows`, without a table of sums.

    The first look-up of a row has the sum of all.
    """
    squares = jnp.zeros(())
    for of_table in vectors.values():
        ids_P = jnp.concatenate([batch[entry].ravel() for entry in of_table])
        vectors_PD = jnp.concatenate([vectors_P1D[:, 0] for vectors_P1D in of_table.values()])
        first_P = jnp.full(rows, ids_P.size).at[ids_P].min(jnp.arange(ids_P.size))[ids_P]
        squares += jnp.sum(jnp.square(jnp.zeros_like(vectors_PD).at[first_P].add(vectors_PD)))
    return jnp.sqrt(squares)
