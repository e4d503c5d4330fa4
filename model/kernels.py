"""Fused attention kernels: cuDNN on GPU, splash attention on TPU.

Both never hold the scores of a whole sequence in memory. Under a mesh each device runs the kernel
on its own rows, heads and query positions, with the keys and values of all positions.

B batch · L query length · S key length · N query heads · K key/value heads · H head dim
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from parallel import rules

LENGTH_MULTIPLE = {'blockwise': 2, 'cudnn': 2, 'splash': 128}  # of the query positions on one device


def fits(implementation: str, batch_size: int, length: int) -> bool:
    """Can the kernel take these shapes? Short inputs, as in initialisation, are left to XLA."""
    shards = rules.num_shards('length') * LENGTH_MULTIPLE[implementation]
    return batch_size % rules.num_shards('batch') == 0 and length % shards == 0


def cudnn(
    q_BLNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    order_L: np.ndarray | None = None,
    causal: bool = True,
    window: int = 0,
) -> jax.Array:
    """Attention within segments by cuDNN; float16 or bfloat16, on GPU only."""

    order_S = np.arange(q_BLNH.shape[1]) if order_L is None else order_L

    def local(q_BLNH, k_BSKH, v_BSKH, q_segments_BL, k_segments_BS):
        length, keys = q_BLNH.shape[1], k_BSKH.shape[1]
        whole = length == keys
        first = 0 if whole else jax.lax.axis_index(rules.mesh_axes('length')) * length
        mask_BLS = q_segments_BL[:, :, None] == k_segments_BS[:, None, :]
        if causal:
            own_L = jax.lax.dynamic_slice_in_dim(jnp.asarray(order_S), first, length)
            distance_LS = own_L[:, None] - order_S
            mask_BLS &= (distance_LS >= 0) & (distance_LS < (window or keys))
        # Told that the mask is causal too, cuDNN skips the blocks above the diagonal.
        return jax.nn.dot_product_attention(
            q_BLNH, k_BSKH, v_BSKH, mask=mask_BLS[:, None], is_causal=causal and whole, implementation='cudnn'
        )

    return _over_devices(local, q_BLNH, k_BSKH, v_BSKH, segments_BL)


def splash(
    q_BLNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    segments_BL: jax.Array | None,
    *,
    order_L: np.ndarray | None = None,
    causal: bool = True,
    window: int = 0,
    interpret: bool = False,
) -> jax.Array:
    """Attention within segments by the splash kernel; on TPU, or anywhere with `interpret`."""
    # Imported here: Pallas takes a second to load, and nothing else needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    _, length, num_heads, head_dim = q_BLNH.shape
    head_shards, length_shards = rules.num_shards('heads'), rules.num_shards('length')
    block = next(size for size in (512, 256, 128) if length // length_shards % size == 0)
    names = ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq')
    blocks: dict[str, Any] = {f'block_{name}': block for name in names}
    if not causal:
        mask = splash_attention.FullMask((length, length))
    elif window:
        mask = splash_attention.LocalMask((length, length), (window - 1, 0), 0)
    else:
        mask = splash_attention.CausalMask((length, length))
    if order_L is not None and not isinstance(mask, splash_attention.FullMask):
        mask.q_sequence = order_L  # of the queries; keys are put in order below
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * num_heads),
        block_sizes=splash_attention.BlockSizes(**blocks),
        head_shards=head_shards,
        q_seq_shards=length_shards,
        interpret=interpret,
    )

    def local(q_BLNH, k_BSKH, v_BSKH, q_segments_BL, k_segments_BS, kernel):
        if order_L is not None:
            in_order = np.argsort(order_L)
            k_BSKH, v_BSKH, k_segments_BS = (x[:, in_order] for x in (k_BSKH, v_BSKH, k_segments_BS))
        q_BNLH, k_BKSH, v_BKSH = (x.swapaxes(1, 2) for x in (q_BLNH, k_BSKH, v_BSKH))
        segments = splash_attention.SegmentIds(q_segments_BL, k_segments_BS)
        return jax.vmap(kernel)(q_BNLH, k_BKSH, v_BKSH, segments).swapaxes(1, 2)

    return _over_devices(local, q_BLNH * head_dim**-0.5, k_BSKH, v_BSKH, segments_BL, kernel)


def _over_devices(local, q_BLNH, k_BSKH, v_BSKH, segments_BL, *kernel):
    """Calls local(q, k, v, query segments, key segments, *kernel) with each device's part of them."""
    if segments_BL is None:
        segments_BL = jnp.zeros(q_BLNH.shape[:2], jnp.int32)
    arguments = (q_BLNH, k_BSKH, v_BSKH, segments_BL, segments_BL, *kernel)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return local(*arguments)
    q_spec = rules.partition_spec(('batch', 'length', 'activation_heads', None))
    k_spec = rules.partition_spec(('batch', 'key_length', 'activation_kv_heads', None))
    specs = (q_spec, k_spec, k_spec, PartitionSpec(*q_spec[:2]), PartitionSpec(*k_spec[:2]))
    mask_sharding = NamedSharding(mesh, rules.partition_spec(('heads', 'length')))
    specs += tuple(k.manual_sharding_spec(mask_sharding) for k in kernel)
    # check_vma: Pallas calls do not say over which axes their results vary.
    return jax.shard_map(local, in_specs=specs, out_specs=q_spec, check_vma=False)(*arguments)
