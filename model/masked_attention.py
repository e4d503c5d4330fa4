"""Softmax attention under a mask, with its derivatives written out.

The backward pass computes the weights again from queries and keys, so that no array of the size of
the scores outlives its layer, and its products are of the kind that `contraction` explains.

B batch · L query length · S key length · N query heads · K key/value heads · H head dim · G = N/K
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from model.contraction import whole

FEW = 32  # queries of a key head; keys, which are more, then stand left in their product (model/held.py)


def attend_masked(
    q_BLNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask_BLS: jax.Array,
    bias_BNLS: jax.Array | None = None,
    *,
    scale: float | None = None,
) -> jax.Array:
    """softmax(q kᵀ · scale + bias) v where the mask is True; a query that sees no key gets the mean of v.

    Scores and softmax are float32, the result has q's dtype. Source: Vaswani et al. 2017,
    eq. 1; grouped heads: Ainslie et al. 2023; the backward pass: Dao et al. 2022, appendix B.

    Args:
      q_BLNH, k_BSKH, v_BSKH: N is a multiple of K; each key/value head serves N/K query heads.
      mask_BLS: booleans, B or 1 in front.
      bias_BNLS: float32, B or 1 in front; None: none.
      scale: None: 1/√H.
    """
    return _attend(q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, scale or q_BLNH.shape[-1] ** -0.5)


def attend_cached(
    q_BLNH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    mask_BLS: jax.Array,
    bias_BNLS: jax.Array | None = None,
    *,
    scale: float | None = None,
) -> jax.Array:
    """Returns what `attend_masked` does of keys and values as a cache has them, heads before positions.

    Products of few queries are in the cache's dtype, lest all of it be converted; of many in q's.
    """
    scale = scale or q_BLNH.shape[-1] ** -0.5
    is_few = q_BLNH.shape[1] * q_BLNH.shape[2] < FEW * k_BKSH.shape[1]
    dtype = k_BKSH.dtype if is_few else q_BLNH.dtype
    q, k, v = (x.astype(dtype) for x in (q_BLNH, k_BKSH, v_BKSH))
    return _weighted(q, k, v, mask_BLS, bias_BNLS, scale)[0].astype(q_BLNH.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, scale):
    return _forward(q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, scale)[0]


def _forward(q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, scale):
    y_BLNH, log_total = _weighted(
        q_BLNH, heads_first(k_BSKH), heads_first(v_BSKH), mask_BLS, bias_BNLS, scale
    )
    return y_BLNH, (q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, y_BLNH, log_total)


def _weighted(q_BLNH, k_BKSH, v_BKSH, mask_BLS, bias_BNLS, scale):
    """Returns the mean of values by their keys' scores, and the logarithm of what the weights sum to."""
    scores_BKGLS = _scores(_queries(q_BLNH, k_BKSH.shape[1]), k_BKSH, mask_BLS, bias_BNLS, scale)
    largest = jnp.max(scores_BKGLS, axis=-1, keepdims=True)
    weights = jnp.exp(scores_BKGLS - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    y_BKGLH = einsum('BKGLS,BKSH->BKGLH', weights.astype(q_BLNH.dtype), v_BKSH) / total
    y_BLNH = jnp.moveaxis(y_BKGLH, 3, 1).reshape(q_BLNH.shape).astype(q_BLNH.dtype)
    return y_BLNH, largest + jnp.log(total)


def _backward(scale, residuals, dy_BLNH):
    q_BLNH, k_BSKH, v_BSKH, mask_BLS, bias_BNLS, y_BLNH, log_total = residuals
    dtype = q_BLNH.dtype
    q_BKGLH, dy_BKGLH, y_BKGLH = (_queries(x, k_BSKH.shape[2]) for x in (q_BLNH, dy_BLNH, y_BLNH))
    k_BKSH, v_BKSH = heads_first(k_BSKH), heads_first(v_BSKH)
    weights = jnp.exp(_scores(q_BKGLH, k_BKSH, mask_BLS, bias_BNLS, scale) - log_total)
    by_weights = einsum('BKGLH,BKSH->BKGLS', dy_BKGLH, v_BKSH)
    along_y = jnp.sum(dy_BKGLH.astype(jnp.float32) * y_BKGLH, axis=-1, keepdims=True)
    by_scores = weights * (by_weights - along_y)
    by_products = (by_scores * scale).astype(dtype)
    dq_BKGLH = einsum('BKGLS,BKSH->BKGLH', by_products, k_BKSH)
    # The products over queries transpose their small operand, not the scores.
    dk_BKHS = einsum('BKHGL,BKGLS->BKHS', jnp.moveaxis(q_BKGLH, 4, 2), by_products)
    dv_BKHS = einsum('BKHGL,BKGLS->BKHS', jnp.moveaxis(dy_BKGLH, 4, 2), weights.astype(dtype))
    dq_BLNH = jnp.moveaxis(dq_BKGLH, 3, 1).reshape(q_BLNH.shape)
    dk_BSKH, dv_BSKH = (jnp.moveaxis(x, 3, 1) for x in (dk_BKHS, dv_BKHS))
    dbias_BNLS = None
    if bias_BNLS is not None:
        dbias_BNLS = by_scores.reshape(-1, *bias_BNLS.shape[1:])
        if len(bias_BNLS) == 1:
            dbias_BNLS = jnp.sum(dbias_BNLS, axis=0, keepdims=True)
    return dq_BLNH.astype(dtype), dk_BSKH.astype(dtype), dv_BSKH.astype(dtype), None, dbias_BNLS


_attend.defvjp(_forward, _backward)


def _queries(x_BLNH: jax.Array, num_kv_heads: int) -> jax.Array:
    """Returns x as [B, K, G, L, H]."""
    batch, length, num_heads, head_dim = x_BLNH.shape
    x_BLKGH = x_BLNH.reshape(batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim)
    return jnp.moveaxis(x_BLKGH, 1, 3)


def heads_first(x_BSKH: jax.Array) -> jax.Array:
    """Returns x as [B, K, S, H]."""
    return jnp.swapaxes(x_BSKH, 1, 2)


def _scores(
    q_BKGLH: jax.Array,
    k_BKSH: jax.Array,
    mask_BLS: jax.Array,
    bias_BNLS: jax.Array | None,
    scale: float,
) -> jax.Array:
    """Returns q kᵀ · scale + bias, float32 [B, K, G, L, S], very negative where the mask is False."""
    if math.prod(q_BKGLH.shape[2:4]) < FEW:
        scores = jnp.moveaxis(einsum('BKSH,BKGLH->BKSGL', k_BKSH, q_BKGLH), 2, 4) * scale
    else:
        scores = einsum('BKGLH,BKSH->BKGLS', q_BKGLH, k_BKSH) * scale
    if bias_BNLS is not None:
        batch, _, *lengths = bias_BNLS.shape
        scores += bias_BNLS.reshape(batch, *q_BKGLH.shape[1:3], *lengths)
    return jnp.where(mask_BLS[:, None, None], scores, jnp.finfo(jnp.float32).min)


def einsum(formula: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the product of two arrays of one dtype, summed in float32."""
    return whole(jnp.einsum(formula, whole(a), whole(b), preferred_element_type=jnp.float32))
