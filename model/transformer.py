"""The Transformer: tokens in, logits out.

Pre-norm residual blocks, stacked on a leading `layers` axis and scanned. What a family chooses
(norm, positions, activation, …) stands in ModelConfig.

B batch · L length · S cache length · D embed · V vocabulary
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.attention import Attention, Cache
from model.contraction import contract
from model.families import ModelConfig
from model.layers import INIT_STDDEV, MLP, Linear, Norm, parameter
from model.positions import Rotation, rotation
from parallel.rules import constrain


class Transformer(nn.Module):
    """A causal language model."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BL: jax.Array,
        segments_BL: jax.Array | None = None,
        positions_BL: jax.Array | None = None,
        *,
        deterministic: bool = True,
        cache: Cache | None = None,
        logits_at_B: jax.Array | None = None,
    ) -> jax.Array | tuple[jax.Array, Cache]:
        """Computes next-token logits.

        Args:
          tokens_BL: int32 ids.
          segments_BL: int32; attention never crosses segments, 0 is padding. None: all one segment.
          positions_BL: int32, below max_length; None: 0, 1, 2, ….
          deterministic: False applies dropout, from the 'dropout' random stream.
          cache: keys and values of earlier positions (`attention.init_cache`). These tokens are
            written at their positions, and see what stands at positions up to their own.
          logits_at_B: the one index along L of each row whose logits are wanted; None: all.

        Returns:
          Logits [B, L, V] in the compute dtype, L = 1 with `logits_at_B`; with `cache`, also the
          extended cache.
        """
        config = self.config
        if cache is not None and segments_BL is not None:
            raise ValueError('A cache holds one segment a row; segments_BL must be None.')
        if positions_BL is None:
            positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)

        table_VD = self._embedding('token_embedding', config.vocab_size, 'vocab')
        x_BLD = lookup(table_VD, tokens_BL, 'activation_vocab').astype(config.compute_dtype)
        turn = None
        if config.position == 'learned':
            table_PD = self._embedding('position_embedding', config.max_length, 'position')
            x_BLD += lookup(table_PD, positions_BL, None).astype(config.compute_dtype)
        else:
            turn = rotation(positions_BL, config)
        x_BLD = nn.Dropout(config.dropout_rate, deterministic=deterministic)(x_BLD)
        x_BLD = constrain(x_BLD, 'batch', 'length', 'activation_embed')

        blocks = scanned_blocks(config)(config, deterministic, name='blocks')
        x_BLD, new_cache = blocks(x_BLD, cache, segments_BL, positions_BL, turn)

        if logits_at_B is not None:
            x_BLD = jnp.take_along_axis(x_BLD, logits_at_B[:, None, None], axis=1)
        x_BLD = Norm(config, name='final_norm')(x_BLD)
        if config.tie_embeddings:
            logits_BLV = contract(x_BLD, table_VD, transposed=True).astype(x_BLD.dtype)
        else:
            unembed = Linear((config.vocab_size,), ('embed', 'vocab'), use_bias=False, name='unembed')
            logits_BLV = unembed(x_BLD)
        logits_BLV = constrain(logits_BLV, 'batch', 'length', 'activation_vocab')
        return logits_BLV if cache is None else (logits_BLV, new_cache)

    def _embedding(self, name: str, size: int, axis: str) -> jax.Array:
        return Embedding((size, self.config.embed_dim), axis, name=name)()


class Embedding(nn.Module):
    """A table of vectors; returned whole, since tied embeddings use it twice."""

    shape: tuple[int, int]
    axis: str

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the table, float32."""
        init = nn.initializers.normal(INIT_STDDEV)
        return parameter(self, 'embedding', init, self.shape, (self.axis, 'embed'))


def lookup(table_VD: jax.Array, ids_BL: jax.Array, axis: str | None) -> jax.Array:
    """Returns the vectors of ids [B, L, D].

    The width is gathered first: a look-up in a table cut along D would otherwise give a result
    that is cut along D and must be laid out anew along B.
    """
    return jnp.take(constrain(table_VD, axis, 'activation_embed'), ids_BL, axis=0)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: ModelConfig
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        cache: Cache | None,
        segments_BL: jax.Array | None,
        positions_BL: jax.Array,
        turn: Rotation | None,
    ) -> tuple[jax.Array, Cache | None]:
        """Returns the new residual stream [B, L, D] and this layer's extended cache."""
        config = self.config
        dropout = nn.Dropout(config.dropout_rate, deterministic=self.deterministic)

        h_BLD = Norm(config, name='attention_norm')(x_BLD)
        h_BLD, cache = Attention(config, name='attention')(h_BLD, cache, segments_BL, positions_BL, turn)
        x_BLD = constrain(x_BLD + dropout(h_BLD), 'batch', 'length', 'activation_embed')

        h_BLD = MLP(config, name='mlp')(Norm(config, name='mlp_norm')(x_BLD))
        x_BLD = constrain(x_BLD + dropout(h_BLD), 'batch', 'length', 'activation_embed')
        return x_BLD, cache


def scanned_blocks(config: ModelConfig) -> type[nn.Module]:
    """Returns Block, rematerialised by policy and repeated over a leading axis of its parameters."""
    block = Block
    if config.remat != 'none':
        policies = {'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable, 'full': None}
        # Inside a scan nothing can be merged across the boundary, so the barriers are not needed.
        block = nn.remat(Block, prevent_cse=False, policy=policies[config.remat])
    return nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=config.num_layers,
        unroll=config.unroll,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
