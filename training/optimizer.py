"""AdamW, AdaGrad and plain descent, their learning-rate schedules, and which parameters decay."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def make_schedule(config: ConfigDict) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made.

    A linear warm-up from 0 to the peak, then
      'cosine'        half a cosine down to `final_learning_rate` × peak (Loshchilov & Hutter 2017),
      'linear'        a straight line to the same,
      'inverse_sqrt'  peak · √(warmup / step) (Vaswani et al. 2017, section 5.3),
      'wsd'           the peak, then a straight line to the same over the last `decay_fraction` of the
                      steps (warm-up, stable, decay; Hu et al. 2024),
      'constant'      the peak.
    """
    options = config.optimizer
    peak, warmup = options.learning_rate, options.warmup_steps
    remaining = max(config.num_steps - warmup, 1)
    if options.schedule == 'cosine':
        after = optax.cosine_decay_schedule(peak, remaining, alpha=options.final_learning_rate)
    elif options.schedule == 'linear':
        after = optax.linear_schedule(peak, peak * options.final_learning_rate, remaining)
    elif options.schedule == 'inverse_sqrt':
        first = max(warmup, 1)
        after = lambda step: peak * jnp.sqrt(first / jnp.maximum(first + step, first))  # noqa: E731
    elif options.schedule == 'wsd':
        decay = max(int(config.num_steps * options.decay_fraction), 1)
        after = optax.linear_schedule(
            peak, peak * options.final_learning_rate, decay, transition_begin=max(remaining - decay, 0)
        )
    else:
        after = optax.constant_schedule(peak)
    return (
        optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after
    )


def parameter_name(path: tuple) -> str:
    """Returns 'blocks/attention/query/kernel' for the path of a leaf in the parameter tree."""
    return '/'.join(str(getattr(entry, 'key', entry)) for entry in path)


def decay_mask(params, patterns: tuple[str, ...]):
    """Returns a tree of bools, True where the parameter's name matches none of `patterns`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(re.search(pattern, parameter_name(path)) for pattern in patterns), params
    )


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optimizer that `optimizer.name` names.

      'adamw'    Adam with decoupled weight decay (Loshchilov & Hutter 2019),
      'adagrad'  rates divided by the root of all squared gradients (Duchi et al. 2011), without decay,
      'sgd'      the gradient times the rate.

    Clipping is the training step's, which needs the gradient's norm in any case.
    """
    options = config.optimizer
    schedule = make_schedule(config)
    if options.name == 'adagrad':
        return optax.adagrad(schedule, initial_accumulator_value=0.0, eps=options.eps)
    if options.name == 'sgd':
        return optax.sgd(schedule)
    return optax.adamw(
        schedule,
        b1=options.b1,
        b2=options.b2,
        eps=options.eps,
        weight_decay=options.weight_decay,
        mask=lambda params: decay_mask(params, options.weight_decay_exclude),
    )
