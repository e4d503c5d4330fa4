"""AdamW, AdaGrad and plain descent, their learning rates by step and by layer, and which parameters decay."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
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


def layer_scales(params, decay: float, num_layers: int, encoder_layers: int):
    """Returns a tree of what learning rates are multiplied by, as arrays that broadcast over the parameters.

    With D blocks in all, an encoder's before a decoder's: decay^(D + 1) for embeddings, decay^(D − i) for
    block i = 0, 1, …, and 1 for what follows them. Source: Clark et al. 2020 (ELECTRA), appendix B; the
    exponents are those of BEiT's code (Bao et al. 2022).

    Args:
      params: nested dict; blocks are stacked on the first axis.
      decay: from 0 to 1.
      num_layers, encoder_layers: blocks of the decoder, or the only stack, and of a separate encoder.
    """
    depth = num_layers + encoder_layers
    first_block = {'encoder_blocks': 0, 'blocks': encoder_layers}

    def scale(path: tuple, leaf: jax.Array):
        name = parameter_name(path)
        stack = name.split('/')[0]
        if stack in first_block:
            blocks = first_block[stack] + np.arange(leaf.shape[0], dtype=np.float32)
            return np.reshape(decay ** (depth - blocks), (-1, *[1] * (leaf.ndim - 1)))
        if re.search(r'embedding|relative_bias', name):
            return np.float32(decay ** (depth + 1))
        return np.float32(decay**num_layers if stack == 'encoder_norm' else 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Returns the optimizer that `optimizer.name` names.

      'adamw'    Adam with decoupled weight decay (Loshchilov & Hutter 2019),
      'adagrad'  rates divided by the root of all squared gradients (Duchi et al. 2011), without decay,
      'sgd'      the gradient times the rate.

    With optimizer.layer_decay the rate of lower layers is less. Clipping is the training step's, which needs
    the gradient's norm in any case.
    """
    options, model = config.optimizer, config.model
    if options.layer_decay == 1.0:
        return _same_rate(config)

    def decay_by_layer(updates, params=None):
        scales = layer_scales(updates, options.layer_decay, model.num_layers, model.encoder_layers or 0)
        return jax.tree.map(jnp.multiply, updates, scales)

    return optax.chain(_same_rate(config), optax.stateless(decay_by_layer))


def _same_rate(config: ConfigDict) -> optax.GradientTransformation:
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
