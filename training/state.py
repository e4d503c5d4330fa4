"""The state of training, and how it comes to life already sharded."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from parallel import rules
from training.optimizer import parameter_name


class TrainState(NamedTuple):
    """Everything a step reads and writes. Leaves are arrays, or what stands for them: shapes, shardings."""

    step: Any  # int32: steps made, skipped ones included
    params: Any  # float32 tree
    opt_state: Any
    ema_params: Any  # float32 tree like params, or None
    skipped_steps: Any  # int32: steps whose gradient was not finite
    skipped_in_a_row: Any  # int32


def initialise(
    model: nn.Module, optimizer: optax.GradientTransformation, *, seed: int, ema: bool
) -> TrainState:
    """Returns the state before the first step; traced, so that `create` can shard it."""
    params = init_params(model, seed)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        opt_state=optimizer.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        skipped_steps=zero,
        skipped_in_a_row=zero,
    )


def init_params(model: nn.Module, seed: int) -> Any:
    """Returns the float32 parameters that `seed` decides, as a plain nested dict."""
    return nn.unbox(model.init(jax.random.key(seed), jnp.zeros((1, 8), jnp.int32))['params'])


def boxed_params(model: nn.Module) -> Any:
    """Returns the parameters' abstract tree, each leaf in a box that names its logical axes."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32)))['params']


def state_shardings(
    abstract: TrainState, shardings: Any, optimizer: optax.GradientTransformation, mesh: Mesh
):
    """Returns a TrainState of NamedShardings: moments and averages lie as their parameters do."""
    replicated = NamedSharding(mesh, P())
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract.opt_state,
        shardings,
        transform_non_params=lambda _: replicated,
    )
    return TrainState(
        step=replicated,
        params=shardings,
        opt_state=opt_state,
        ema_params=None if abstract.ema_params is None else shardings,
        skipped_steps=replicated,
        skipped_in_a_row=replicated,
    )


def abstract_state(
    model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh, *, seed: int, ema: bool
) -> TrainState:
    """Returns the state's shapes, dtypes and shardings without computing anything."""
    abstract = jax.eval_shape(lambda: initialise(model, optimizer, seed=seed, ema=ema))
    shardings = state_shardings(abstract, rules.shardings(boxed_params(model), mesh), optimizer, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def create(
    model: nn.Module, optimizer: optax.GradientTransformation, abstract: TrainState, *, seed: int
) -> TrainState:
    """Computes the first state directly into its shards: no device ever holds it whole."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = lambda: initialise(model, optimizer, seed=seed, ema=abstract.ema_params is not None)  # noqa: E731
    return jax.jit(init, out_shardings=shardings)()


def describe_parameters(abstract_params: Any, boxed: Any) -> list[tuple[str, str, str, str, int]]:
    """Returns (name, shape, logical axes, sharding, bytes on one device) of every parameter."""
    rows = []
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params)
    axes = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, P))
    for (path, leaf), spec in zip(leaves, axes, strict=True):
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        shape = ' × '.join(map(str, leaf.shape))
        cut = ' '.join(_words(axis) for axis in leaf.sharding.spec)
        rows.append((parameter_name(path), shape, ' '.join(map(_words, spec)), cut, size))
    return rows


def _words(axes: str | tuple[str, ...] | None) -> str:
    return axes if isinstance(axes, str) else '+'.join(axes) if axes else '·'
