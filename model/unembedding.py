"""From hidden states to logits, and statistics of logits that never exist whole.

B batch · L length · D embed · V vocabulary · U vocabulary of one block
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from model.contraction import contract, whole
from parallel import rules
from parallel.collectives import cuts_of, gather_along, sum_along
from parallel.rules import constrain


class Unembedding(NamedTuple):
    """Logits x · kernel + bias, not yet computed."""

    x_BLD: jax.Array
    table_VD: jax.Array | None  # of tied embeddings; otherwise
    kernel_DV: jax.Array | None
    bias_V: jax.Array | None

    def logits(self) -> jax.Array:
        """Returns a logit for each id of the vocabulary [B, L, V], in x's dtype."""
        if self.table_VD is not None:
            logits_BLV = contract(self.x_BLD, self.table_VD, transposed=True, axes=('vocab', 'embed'))
        else:
            assert self.kernel_DV is not None
            logits_BLV = contract(self.x_BLD, self.kernel_DV, axes=('embed', 'vocab'))
        logits_BLV = logits_BLV.astype(self.x_BLD.dtype)
        if self.bias_V is not None:
            logits_BLV += self.bias_V.astype(logits_BLV.dtype)
        return constrain(logits_BLV, 'batch', 'length', 'activation_vocab')

    def statistics(self, targets_BL: jax.Array, blocks: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns log Σ exp(logits), the target's logit and the mean logit, each float32 [B, L].

        Logits are computed for one of `blocks` equal parts of each device's vocabulary at a time, and again
        in the backward pass. The kernel is gathered, and its gradient summed over devices, block by block.
        """
        kernel = self.table_VD if self.table_VD is not None else self.kernel_DV
        bias_V = jnp.zeros((0,), jnp.float32) if self.bias_V is None else self.bias_V
        return _statistics(self.x_BLD, kernel, bias_V, targets_BL, blocks, self.table_VD is not None)


# ---- Block by block ----------------------------------------------------------------------------------------


def _primal(x_BLD, kernel, bias_V, targets_BL, blocks, transposed):
    return _forward(x_BLD, kernel, bias_V, targets_BL, blocks, transposed)[0]


_statistics = jax.custom_vjp(_primal, nondiff_argnums=(4, 5))


def _forward(x_BLD, kernel, bias_V, targets_BL, blocks, transposed):
    arrays = (x_BLD, kernel, bias_V, targets_BL)
    statistics = _over_devices(_local_statistics, arrays, blocks, transposed, gradients=False)
    return statistics, (*arrays, statistics[0])


def _backward(blocks, transposed, residuals, by_statistics):
    arrays = (*residuals, *by_statistics)
    return *_over_devices(_local_gradients, arrays, blocks, transposed, gradients=True), None


_statistics.defvjp(_forward, _backward)


def _over_devices(local, arrays: tuple[Any, ...], blocks: int, transposed: bool, *, gradients: bool) -> Any:
    """Calls local(*arrays, …) with each device's part of x, kernel, bias, and of what is per token."""
    x_BLD, _, bias_V, targets_BL, *_ = arrays
    mesh_shape = jax.sharding.get_abstract_mesh().shape
    cuts = cuts_of([x_BLD.shape, targets_BL.shape])
    vocab = tuple(axis for axis in rules.mesh_axes('vocab') if mesh_shape.get(axis, 1) > 1)
    width = tuple(axis for axis in rules.mesh_axes('embed') if mesh_shape.get(axis, 1) > 1)
    device = _Device(blocks, transposed, tuple(axis for cut in cuts for axis in cut), vocab, width)
    local = functools.partial(local, device)
    if all(size == 1 for size in mesh_shape.values()):
        return local(*arrays)
    tokens = PartitionSpec(*cuts)
    kernel = PartitionSpec(vocab, width) if transposed else PartitionSpec(width, vocab)
    ids = PartitionSpec(vocab) if bias_V.size else PartitionSpec()
    specs = (tokens, kernel, ids)
    return jax.shard_map(
        local,
        in_specs=specs + (tokens,) * (len(arrays) - len(specs)),
        out_specs=specs if gradients else (tokens,) * 3,
        check_vma=False,  # sums over groups of devices, see parallel/collectives.py
    )(*arrays)


class _Device(NamedTuple):
    """What a device knows of the layout, beside its parts."""

    blocks: int
    transposed: bool
    shared: tuple[str, ...]  # mesh axes that cut batch and length
    vocab: tuple[str, ...]  # that cut the vocabulary
    width: tuple[str, ...]  # that cut the stored width

    def block(self, kernel, bias_V, dtype, index):
        """Returns kernel [D, U] and bias [U] of a block, and the id of its first column."""
        size = kernel.shape[0 if self.transposed else 1]
        count = size // self.blocks
        part = jax.lax.dynamic_slice_in_dim(kernel, index * count, count, 0 if self.transposed else 1)
        part = part.astype(dtype)
        for axis in self.width:
            part = gather_along(part, axis, 1 if self.transposed else 0)
        shard = jax.lax.axis_index(self.vocab) if self.vocab else 0
        bias_U = jax.lax.dynamic_slice_in_dim(bias_V, index * count, count) if bias_V.size else 0.0
        return part.T if self.transposed else part, bias_U, shard * size + index * count


def _logits(x_BLD, kernel_DU, bias_U):
    return _product('BLD,DU->BLU', x_BLD, kernel_DU) + bias_U


def _local_statistics(device: _Device, x_BLD, kernel, bias_V, targets_BL):
    def add(carry, index):
        largest, total, target, mean = carry
        kernel_DU, bias_U, first = device.block(kernel, bias_V, x_BLD.dtype, index)
        logits_BLU = _logits(x_BLD, kernel_DU, bias_U)
        new_largest = jnp.maximum(largest, jnp.max(logits_BLU, axis=-1))
        total *= jnp.exp(largest - new_largest)
        total += jnp.sum(jnp.exp(logits_BLU - new_largest[..., None]), axis=-1)
        is_target = _is_target(targets_BL, first, logits_BLU.shape[-1])
        target += jnp.sum(jnp.where(is_target, logits_BLU, 0), axis=-1)
        return (new_largest, total, target, mean + jnp.sum(logits_BLU, axis=-1)), None

    zeros = jnp.zeros(targets_BL.shape, jnp.float32)
    lowest = jnp.full(targets_BL.shape, jnp.finfo(jnp.float32).min)
    start = (lowest, zeros, zeros, zeros)
    largest, total, target, mean = jax.lax.scan(add, start, jnp.arange(device.blocks))[0]
    vocab_size = kernel.shape[0 if device.transposed else 1]
    if device.vocab:
        largest, own = jax.lax.pmax(largest, device.vocab), largest
        total, target, mean = jax.lax.psum((total * jnp.exp(own - largest), target, mean), device.vocab)
        vocab_size *= jax.lax.axis_size(device.vocab)
    return largest + jnp.log(total), target, mean / vocab_size


def _local_gradients(
    device: _Device, x_BLD, kernel, bias_V, targets_BL, log_z_BL, by_log_z_BL, by_target_BL, by_mean_BL
):
    axes = ('vocab', 'embed') if device.transposed else ('embed', 'vocab')
    vocab_size = kernel.shape[0 if device.transposed else 1]
    if device.vocab:
        vocab_size *= jax.lax.axis_size(device.vocab)

    def add(by_x_BLD, index):
        kernel_DU, bias_U, first = device.block(kernel, bias_V, x_BLD.dtype, index)
        p_BLU = jnp.exp(_logits(x_BLD, kernel_DU, bias_U) - log_z_BL[..., None])
        is_target = _is_target(targets_BL, first, p_BLU.shape[-1])
        by_logits = by_log_z_BL[..., None] * p_BLU + jnp.where(is_target, by_target_BL[..., None], 0)
        by_logits += by_mean_BL[..., None] / vocab_size
        by_bias_U = jnp.sum(by_logits, axis=(0, 1)) if bias_V.size else bias_V
        by_logits = by_logits.astype(x_BLD.dtype)
        by_x_BLD += _product('BLU,DU->BLD', by_logits, kernel_DU)
        formula = 'BLU,BLD->UD' if device.transposed else 'BLU,BLD->DU'
        by_kernel = _product(formula, by_logits, x_BLD).astype(kernel.dtype)
        return by_x_BLD, (sum_along(by_kernel, axes, device.shared), by_bias_U)

    start = jnp.zeros(x_BLD.shape, jnp.float32)
    by_x_BLD, (by_kernel, by_bias) = jax.lax.scan(add, start, jnp.arange(device.blocks))
    by_bias_V = by_bias.reshape(bias_V.shape)
    if device.vocab:
        by_x_BLD = jax.lax.psum(by_x_BLD, device.vocab)
    if device.shared and bias_V.size:
        by_bias_V = jax.lax.psum(by_bias_V, device.shared)
    by_kernel = by_kernel if device.transposed else jnp.moveaxis(by_kernel, 0, 1)
    return by_x_BLD.astype(x_BLD.dtype), by_kernel.reshape(kernel.shape), by_bias_V


def _is_target(targets_BL, first, count):
    return targets_BL[..., None] == first + jnp.arange(count)


def _product(formula, a, b):
    return whole(jnp.einsum(formula, whole(a), whole(b), preferred_element_type=jnp.float32))
