"""Norms, activations, linear maps and the MLP.

The functions are the mathematics; the modules below them declare the parameters (float32,
with logical axes) and cast them to the dtype of their input.

B batch · L length · D embed · F mlp
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model import lora as lora_names
from model.contraction import contract
from model.families import ModelConfig
from model.held import Held
from model.lora import LoRA
from parallel.rules import constrain

PROJECTION = 'projection'  # the name under which rematerialisation may keep a linear map's result
INIT_STDDEV = 0.02  # of every matrix; Radford et al. 2019 and the released GPT-2


def recomputed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Keeps a function's inputs and matrix products for the backward pass, which computes the rest again.

    For sweeps over an array, which cost less than writing and reading what lies between.
    """
    # The blocks are scanned: nothing can be merged across its boundary, so no barriers are needed.
    return jax.checkpoint(function, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable)


def _activation(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Computes an activation in float32 and returns it in the dtype of its input."""
    return recomputed(lambda x: function(x.astype(jnp.float32)).astype(x.dtype))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu': _activation(functools.partial(jax.nn.gelu, approximate=False)),
    'gelu_tanh': _activation(functools.partial(jax.nn.gelu, approximate=True)),
    'silu': _activation(jax.nn.silu),
    'relu': jax.nn.relu,
}


@recomputed
def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array | None, *, epsilon: float) -> jax.Array:
    """(x − mean) / √(variance + ε) · scale + bias over the last axis (Ba et al. 2016).

    Computed in float32, returned in x's dtype. The variance is the biased one.
    """
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon) * scale_D
    return (y if bias_D is None else y + bias_D).astype(x.dtype)


@recomputed
def rms_norm(x: jax.Array, scale_D: jax.Array, *, epsilon: float) -> jax.Array:
    """x / √(mean(x²) + ε) · scale over the last axis (Zhang and Sennrich 2019).

    Computed in float32, returned in x's dtype.
    """
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + epsilon) * scale_D).astype(x.dtype)


def residual_stddev(config: ModelConfig) -> float:
    """Initial spread of the projections that end a residual branch.

    Each of the 2 · num_layers branches adds its variance to the residual stream; the factor
    keeps their sum from growing with depth. Source: Radford et al. 2019, section 2.3.
    """
    return INIT_STDDEV / (2 * config.num_layers) ** 0.5


def parameter(
    module: nn.Module,
    name: str,
    init: nn.initializers.Initializer,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> jax.Array:
    """Declares a float32 parameter of a module, one logical axis per dimension; returns it, or it held."""
    if isinstance(held := module.get_variable('params', name), Held):
        return held  # pyright: ignore[reportReturnType]
    return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)  # pyright: ignore


class Norm(nn.Module):
    """The family's norm over the last axis, whose logical axis is `axis`."""

    config: ModelConfig
    axis: str = 'norm'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x; shape and dtype stay."""
        shape, axes, config = x.shape[-1:], (self.axis,), self.config
        scale = parameter(self, 'scale', nn.initializers.ones, shape, axes)
        if config.norm == 'rmsnorm':
            return rms_norm(x, scale, epsilon=config.norm_epsilon)
        bias = parameter(self, 'bias', nn.initializers.zeros, shape, axes) if config.use_bias else None
        return layer_norm(x, scale, bias, epsilon=config.norm_epsilon)


class Linear(nn.Module):
    """Contracts the last axes of x with a kernel; `axes` names the kernel's, inputs then outputs.

    The kernel has adapters beside it (model/lora.py) if `lora` says so.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    use_bias: bool
    stddev: float = INIT_STDDEV
    lora: LoRA | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x · kernel + bias in x's dtype; as many last axes are contracted as `axes` has inputs."""
        inputs = len(self.axes) - len(self.features)
        shape = x.shape[-inputs:] + self.features
        kernel = parameter(self, 'kernel', nn.initializers.normal(self.stddev), shape, self.axes)
        y = contract(x, kernel, inputs, axes=self.axes)
        if self.lora and self.lora.adapts(self.path):
            y += self._adapt(x, inputs, self.lora)
        if self.use_bias:
            y += parameter(self, 'bias', nn.initializers.zeros, self.features, self.axes[inputs:])
        return checkpoint_name(y.astype(x.dtype), PROJECTION)

    def _adapt(self, x: jax.Array, inputs: int, lora: LoRA) -> jax.Array:
        """Returns what the adapters add, float32; the spread of A keeps x A as large as x."""
        sizes, axes = x.shape[-inputs:], self.axes
        init = nn.initializers.normal(math.prod(sizes) ** -0.5)
        a = parameter(self, lora_names.A, init, (*sizes, lora.rank), (*axes[:inputs], 'rank'))
        zeros = nn.initializers.zeros
        b = parameter(self, lora_names.B, zeros, (lora.rank, *self.features), ('rank', *axes[inputs:]))
        return lora.scale * contract(contract(x, a, inputs).astype(x.dtype), b)


class MLP(nn.Module):
    """down(activation(up(x))), or down(activation(gate(x)) · up(x)) when gated (Shazeer 2020)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        """Returns the branch's output [B, L, D]."""
        config = self.config
        activation = ACTIVATIONS[config.activation]

        def widen(name: str) -> jax.Array:
            widen = Linear((config.mlp_dim,), ('embed', 'mlp'), config.use_bias, lora=config.lora, name=name)
            y_BLF = widen(x_BLD)
            return constrain(y_BLF, 'batch', 'length', 'activation_mlp')

        up_BLF = widen('up')
        hidden_BLF = activation(widen('gate')) * up_BLF if config.gated_mlp else activation(up_BLF)
        axes, stddev = ('mlp', 'embed'), residual_stddev(config)
        down = Linear((config.embed_dim,), axes, config.use_bias, stddev, config.lora, name='down')
        return down(hidden_BLF)
