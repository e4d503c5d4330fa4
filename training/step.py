"""One optimizer step, and one evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from configs.errors import UserError
from training import freezing, offloading, table_rows
from training.optimizer import parameter_name
from training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_train_step(
    model: nn.Module,
    objective: ModuleType,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the function (state, batch) → (state, metrics) that the loop compiles.

    Loss and gradients are sums over the global batch divided once by its global weight, so accumulation,
    padding and the number of devices do not change them. Of frozen parameters no gradient is computed. A step
    whose gradient is not finite leaves parameters and optimizer as they were and is counted. Metrics are
    float32 scalars.
    """

    if config.gradient_dtype == 'bfloat16' and model.config.compute_dtype != 'bfloat16':  # pyright: ignore
        raise UserError(
            "gradient_dtype='bfloat16' rounds kernels, as a model that computes in bfloat16 does anyway: set "
            "compute_dtype='bfloat16', or leave gradient_dtype='float32'."
        )
    whole = _make_step(model, objective, config, optimizer, schedule)
    on_rows = _make_step_on_rows(model, objective, config, optimizer, schedule)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step = on_rows if table_rows.suffice(objective, config, state) else whole
        return step(state, batch)

    return train_step


def _make_step(
    model: nn.Module,
    objective: Any,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    def loss_sums(learnt: Any, frozen: Any, part: Batch, key: jax.Array | None):
        params = freezing.join(learnt, frozen)
        loss, weight, sums = objective.loss(model, params, part, config=config, dropout_key=key)
        return loss, {'weight': weight, 'loss': loss, **sums}

    def accumulate(state: TrainState, batch: Batch, key: jax.Array | None) -> tuple[Any, Metrics]:
        gradient = jax.grad(loss_sums, has_aux=True)

        def gradient_of_part(part: Batch, index: jax.Array | int):
            part_key = None if key is None else jax.random.fold_in(key, index)
            grads, sums = gradient(learnt, frozen, part, part_key)
            if config.grad_accumulation > 1:
                # Otherwise libtpu takes sums over devices out of the loop over parts, and fails when their
                # dtype changes on the way.
                grads = jax.lax.optimization_barrier(grads)
            return jax.tree.map(lambda g: g.astype(jnp.float32), grads), sums

        learnt, frozen = state.params, state.frozen
        if config.gradient_dtype == 'bfloat16':
            learnt, frozen = round_matrices(learnt), round_matrices(frozen)
        return sum_over_parts(gradient_of_part, batch, config.grad_accumulation)

    def update_at_once(grads: Any, opt_state: Any, params: Any, make: jax.Array) -> tuple[Any, Any]:
        updates, new = optimizer.update(grads, opt_state, params)
        return updates, _where(make, new, opt_state)

    update = offloading.by_layers(update_at_once) if config.optimizer.offload else update_at_once

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = None
        if getattr(model.config, 'dropout_rate', 0.0) > 0:  # word vectors have none
            key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        grads, sums = accumulate(state, batch, key)
        if hasattr(objective, 'row_factors'):
            factors = objective.row_factors(batch, config=config, rows=_rows(state.params))
            grads = jax.tree.map(lambda g, factors_V: g * factors_V[:, None], grads, factors)
        weight, metrics = _means(sums)

        norm = optax.tree.norm(grads) / weight
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics['loss'])
        clip = config.optimizer.clip_norm
        scale = (jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12)) if clip else 1.0) / weight
        grads = jax.tree.map(lambda g: g * scale, grads)
        updates, opt_state = update(grads, state.opt_state, state.params, finite)
        params = _where(finite, optax.apply_updates(state.params, updates), state.params)
        ema_params = state.ema_params
        if ema_params is not None:
            made = (state.step - state.skipped_steps).astype(jnp.float32)
            decay = jnp.minimum(config.ema_decay, (1 + made) / (10 + made))  # forgets the initial weights
            ema_params = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, ema_params, params)

        metrics['grad_norm'] = norm
        state = state._replace(params=params, opt_state=opt_state, ema_params=ema_params)
        return _counted(state, metrics, finite, schedule)

    return train_step


def _make_step_on_rows(
    model: nn.Module,
    objective: Any,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the same step for what `table_rows.suffice` admits.

    Gradients are those of each look-up by itself. Their sums' norm is worked out in steps that are logged;
    in the others it is NaN. The loss alone tells whether a step is finite.
    """

    def loss_sums(vectors: Any, batch: Batch):
        loss, weight, sums = objective.loss(model, vectors, batch, config=config)
        return loss, {'weight': weight, 'loss': loss, **sums}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        vectors = table_rows.look_up(state.params, objective.LOOKUPS, batch)
        grads, sums = jax.grad(loss_sums, has_aux=True)(vectors, batch)
        weight, metrics = _means(sums)

        rows = _rows(state.params)
        factors = objective.row_factors(batch, config=config, rows=rows)
        factors = jax.tree.map(lambda factor: factor / weight, factors)
        updates: Any
        updates, opt_state = optimizer.update(table_rows.scaled(grads, factors, batch), state.opt_state)
        finite = jnp.isfinite(metrics['loss'])
        step, rate = state.step + 1, schedule(state.step - state.skipped_steps)
        metrics['grad_norm'] = jax.lax.cond(
            (step % config.log_every == 0) | (step == config.num_steps),
            lambda: table_rows.norm_of_sums(updates, batch, rows) / rate,
            lambda: jnp.float32(jnp.nan),
        )
        state = state._replace(
            params=table_rows.add(state.params, updates, batch, where=finite),
            opt_state=_where(finite, opt_state, state.opt_state),
        )
        return _counted(state, metrics, finite, schedule)

    return train_step


def _means(sums: Metrics) -> tuple[jax.Array, Metrics]:
    """Returns the weight of a batch, and the means over it that are shown."""
    weight = jnp.maximum(sums['weight'], 1e-8)
    return weight, {name: value / weight for name, value in sums.items() if name not in ('weight', 'nll')}


def _rows(tables: Any) -> int:
    """Returns how many rows an objective's tables have."""
    return jax.tree.leaves(tables)[0].shape[0]


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _counted(
    state: TrainState, metrics: Metrics, finite: jax.Array, schedule: optax.Schedule
) -> tuple[TrainState, Metrics]:
    """Returns the state and the metrics with one step more, made or skipped."""
    skipped = 1 - finite.astype(jnp.int32)
    counted = state._replace(
        step=state.step + 1,
        skipped_steps=state.skipped_steps + skipped,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * skipped,
    )
    metrics |= {
        'learning_rate': jnp.asarray(schedule(state.step - state.skipped_steps), jnp.float32),
        'skipped_steps': counted.skipped_steps,
        'skipped_in_a_row': counted.skipped_in_a_row,
    }
    return counted, metrics


def round_matrices(params: Any) -> Any:
    """Returns the parameters with kernels and tables in bfloat16.

    A model that computes in bfloat16 rounds them in any case before use. A gradient has its parameter's dtype
    when devices sum it (`model.contraction`), so that this decides what they send.
    """

    def rounded(path: tuple, p: jax.Array) -> jax.Array:
        return p.astype(jnp.bfloat16) if parameter_name(path).endswith(('kernel', 'embedding')) else p

    return jax.tree_util.tree_map_with_path(rounded, params)


def make_eval_step(
    model: nn.Module, objective: ModuleType, config: ConfigDict
) -> Callable[[Any, Batch], Metrics]:
    """Returns the function (params, batch) → sums of loss, weight and the objective's further metrics."""

    def eval_step(params: Any, batch: Batch) -> Metrics:
        def sums_of_part(part: Batch, _: jax.Array | int) -> Metrics:
            loss, weight, sums = objective.loss(model, params, part, config=config)
            return {'loss': loss, 'weight': weight, **sums}

        return sum_over_parts(sums_of_part, batch, config.grad_accumulation)

    return eval_step


def sum_over_parts(function: Callable[[Batch, Any], Any], batch: Batch, count: int) -> Any:
    """Returns the sum of function(part, index) over `count` equal parts of a batch, one after another.

    Row r is in part r mod count, so that every device works on its own rows in every part.
    """
    if count == 1:
        return function(batch, 0)
    parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Any, indexed_part: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        index, part = indexed_part
        return jax.tree.map(jnp.add, total, function(part, index)), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts), jnp.int32(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, (jnp.arange(count), parts))[0]
