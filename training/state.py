"""The state of training, and how it comes to life already sharded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from parallel import compiler, rules
from training import freezing, offloading
from training.freezing import Learnt
from training.optimizer import parameter_name

EVERYTHING = Learnt()


class TrainState(NamedTuple):
    """Everything a step reads and writes. Leaves are arrays, or what stands for them: shapes, shardings."""

    step: Any  # int32: steps made, skipped ones included
    params: Any  # float32 tree of what is learnt
    opt_state: Any
    ema_params: Any  # float32 tree like params, or None
    skipped_steps: Any  # int32: steps whose gradient was not finite
    skipped_in_a_row: Any  # int32
    frozen: Any = None  # float32 tree of the parameters that stay as they are, or None

    def whole_params(self) -> Any:
        """Returns all parameters, for use: of what is learnt the moving average, where there is one."""
        return freezing.join(self.params if self.ema_params is None else self.ema_params, self.frozen)


def initialise(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: bool,
    learns: Learnt = EVERYTHING,
    given: Mapping[str, Any] | None = None,
) -> TrainState:
    """Returns the state before the first step; traced, so that `create` can shard it.

    Parameters are those `given` ({name: array}), and for the rest what `seed` decides; `learns` says which of
    them are learnt.
    """
    params = freezing.named(init_params(model, seed)) | dict(given or {})
    learnt, still = freezing.split(unflatten_dict(params, sep='/'), learns)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=learnt,
        opt_state=optimizer.init(learnt),
        ema_params=jax.tree.map(jnp.copy, learnt) if ema else None,
        skipped_steps=zero,
        skipped_in_a_row=zero,
        frozen=still,
    )


def init_params(model: nn.Module, seed: int) -> Any:
    """Returns the float32 parameters that `seed` decides, as a plain nested dict."""
    return nn.unbox(model.init(jax.random.key(seed), jnp.zeros((1, 8), jnp.int32))['params'])


def boxed_params(model: nn.Module) -> Any:
    """Returns the parameters' abstract tree, each leaf in a box that names its logical axes."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32)))['params']


def state_shardings(
    abstract: TrainState,
    shardings: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    learns: Learnt = EVERYTHING,
    offload: bool = False,
) -> TrainState:
    """Returns a TrainState of NamedShardings: moments and averages lie as their parameters do.

    With `offload` moments lie so in the hosts' memory.
    """
    replicated = NamedSharding(mesh, P())
    learnt, still = freezing.split(shardings, learns)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: offloading.on_host(sharding) if offload else sharding,
        abstract.opt_state,
        learnt,
        transform_non_params=lambda _: replicated,
    )
    return TrainState(
        step=replicated,
        params=learnt,
        opt_state=opt_state,
        ema_params=None if abstract.ema_params is None else learnt,
        skipped_steps=replicated,
        skipped_in_a_row=replicated,
        frozen=still,
    )


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    ema: bool,
    learns: Learnt = EVERYTHING,
    offload: bool = False,
) -> TrainState:
    """Returns the state's shapes, dtypes and shardings without computing anything."""
    abstract = jax.eval_shape(lambda: initialise(model, optimizer, seed=seed, ema=ema, learns=learns))
    cut = rules.shardings(boxed_params(model), mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        state_shardings(abstract, cut, optimizer, mesh, learns, offload),
    )


def experiment_state(
    config: ConfigDict, model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Returns `abstract_state` as an experiment says it is to be."""
    return abstract_state(
        model,
        optimizer,
        mesh,
        seed=config.seed,
        ema=config.ema_decay > 0,
        learns=freezing.learnt(config),
        offload=config.optimizer.offload,
    )


def create(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    abstract: TrainState,
    *,
    seed: int,
    learns: Learnt = EVERYTHING,
    given: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """Computes the first state directly into its shards: no device ever holds it whole.

    `given` parameters ({name: array}) are taken over as they lie; their arrays may not be used afterwards.
    """

    def init(given: Mapping[str, jax.Array] | None) -> TrainState:
        ema = abstract.ema_params is not None
        return initialise(model, optimizer, seed=seed, ema=ema, learns=learns, given=given)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        init,
        out_shardings=shardings,
        donate_argnums=0,
        compiler_options=compiler.options(abstract.step.sharding.mesh),
    )(given)


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
