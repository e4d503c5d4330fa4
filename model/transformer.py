"""The Transformer: tokens in, logits out.

Residual blocks, stacked on a leading `layers` axis and scanned: a decoder, an encoder, or both. What a
family chooses (norm, positions, activation, …) stands in ModelConfig.

B batch · L length · S length of an encoder's input, or of a cache · D embed · V vocabulary · N heads
M positions that are wanted · F sequences in a row · C classes
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model.attention import Attention, Cache, Caches, Context, CrossAttention
from model.families import ModelConfig
from model.layers import ACTIVATIONS, INIT_STDDEV, MLP, PROJECTION, Linear, Norm, parameter
from model.lookup import lookup
from model.positions import relative_buckets, rotation, sinusoids
from model.unembedding import Unembedding
from parallel import placement
from parallel.rules import constrain


class Transformer(nn.Module):
    """A language model: causal, masked, or from one sequence to another."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BL: jax.Array,
        segments_BL: jax.Array | None = None,
        positions_BL: jax.Array | None = None,
        *,
        types_BL: jax.Array | None = None,
        prefix_BL: jax.Array | None = None,
        encoder_tokens_BS: jax.Array | None = None,
        encoder_segments_BS: jax.Array | None = None,
        encoder_positions_BS: jax.Array | None = None,
        deterministic: bool = True,
        cache: Caches | None = None,
        logits_at_BM: jax.Array | None = None,
        first_at_BF: jax.Array | None = None,
        output: str | tuple[str, ...] = 'logits',
    ) -> Any:
        """Computes logits: of the next token, or in an encoder of each token.

        Args:
          tokens_BL: int32 ids.
          segments_BL: int32; attention never crosses segments, 0 is padding. None: all one segment.
          positions_BL: int32, below max_length; None: 0, 1, 2, ….
          types_BL: int32 below config.token_types, such as which of two sentences; None: 0.
          prefix_BL: booleans, for a prefix decoder; these positions are seen by all of their segment.
          encoder_tokens_BS, encoder_segments_BS, encoder_positions_BS: the same of an encoder's input, of
            which a decoder's position sees its own segment.
          deterministic: False applies dropout, from the 'dropout' random stream.
          cache: keys and values of earlier positions (`attention.init_cache`). These tokens are
            written at their positions, and see what stands at positions up to their own. What an encoder
            reads comes with the first of them, and is in the cache from then on. A cache for each layer goes
            with parameters of `separate`.
          logits_at_BM: indices along L of the positions that are wanted; None: all.
          first_at_BF: where each of several sequences in a row begins; None: one, at 0.
          output: one or several of 'logits'; 'unembedding', the same not yet computed; 'hidden', of the last
            block; 'pooled', of the whole sequence, by its first position (Devlin et al. 2019); 'classes', of
            the whole sequence; and 'spans', of each position as the first and the last of an answer.

        Returns:
          In the compute dtype, logits [B, L, V], hidden states [B, L, D], spans' logits [B, L, 2]; M instead
          of L with `logits_at_BM`; a pooled state [B, D] or classes' logits [B, C]; [B, F, …] with
          `first_at_BF`. With `cache`, also the extended cache.
        """
        config = self.config
        if cache is not None and segments_BL is not None:
            raise ValueError('A cache holds one segment a row; segments_BL must be None.')
        if config.encoder_layers and encoder_tokens_BS is None and self.is_initializing():
            encoder_tokens_BS = tokens_BL
        scale = 1.0 if config.scale_logits else config.embed_dim**-0.5 if config.scale_embeddings else None
        table_VD = Embedding(
            (config.vocab_size, config.embed_dim), 'vocab', scale or INIT_STDDEV, name='token_embedding'
        )()
        embed = self._embedding(table_VD, nn.Dropout(config.dropout_rate, deterministic=deterministic))

        encoded_BSD = None
        if encoder_tokens_BS is not None:
            x_BSD, context = embed(encoder_tokens_BS, encoder_segments_BS, encoder_positions_BS, None)
            context = context._replace(bias_BNLS=self._bias('encoder_relative_bias', context, None))
            blocks = scanned_blocks(config, config.encoder_layers)
            x_BSD, _ = blocks(config, deterministic, causal=False, name='encoder_blocks')(
                x_BSD, None, context
            )
            encoded_BSD = Norm(config, name='encoder_norm')(x_BSD) if config.norm_order == 'pre' else x_BSD

        order_L = self._order(tokens_BL, cache, deterministic)
        if order_L is not None:
            if positions_BL is None:
                positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
            inputs = (tokens_BL, segments_BL, positions_BL, types_BL, prefix_BL)
            placed = jax.tree.map(lambda x_BL: placement.place(x_BL, order_L), inputs)
            tokens_BL, segments_BL, positions_BL, types_BL, prefix_BL = placed
        x_BLD, context = embed(tokens_BL, segments_BL, positions_BL, types_BL)
        context = context._replace(
            bias_BNLS=self._bias('relative_bias', context, cache, order_L),
            prefix_BL=prefix_BL,
            encoded_BSD=encoded_BSD,
            encoder_segments_BS=encoder_segments_BS,
        )
        block = {
            'config': config,
            'deterministic': deterministic,
            'causal': config.structure != 'encoder',
            'cross': config.encoder_layers > 0,
            'balanced': order_L is not None,
        }
        if isinstance(cache, tuple):
            new_cache = ()
            for layer, of_layer in enumerate(cache):
                x_BLD, extended = Block(**block, name=f'block_{layer}')(x_BLD, of_layer, context)
                new_cache += (extended,)
        else:
            blocks = scanned_blocks(config, config.num_layers)
            x_BLD, new_cache = blocks(**block, name='blocks')(x_BLD, cache, context)
        if order_L is not None:
            x_BLD = placement.in_order(x_BLD)

        first_BFD = x_BLD[:, :1]
        if first_at_BF is not None:
            first_BFD = jnp.take_along_axis(x_BLD, first_at_BF[:, :, None], axis=1)
        if logits_at_BM is not None:
            x_BLD = jnp.take_along_axis(x_BLD, logits_at_BM[:, :, None], axis=1)
        if config.norm_order == 'pre':
            norm = Norm(config, name='final_norm')
            x_BLD, first_BFD = norm(x_BLD), norm(first_BFD)
        if first_at_BF is None:
            first_BFD = first_BFD[:, 0]
        results = self._heads(x_BLD, first_BFD, table_VD, output, deterministic)
        return results if cache is None else (results, new_cache)

    def _heads(
        self,
        x_BLD: jax.Array,
        first_BFD: jax.Array,
        table_VD: jax.Array,
        output: str | tuple[str, ...],
        deterministic: bool,
    ) -> Any:
        """Returns the outputs of these names; at initialisation, makes the parameters of all."""
        config = self.config
        wanted = (output,) if isinstance(output, str) else output
        if self.is_initializing():
            has = {
                'logits': config.head != 'none',
                'pooled': config.pooler,
                'classes': config.num_classes > 0,
                'spans': config.span_head,
            }
            wanted = tuple(name for name in has if has[name])
        results: dict[str, Any] = {'hidden': x_BLD}
        if 'logits' in wanted or 'unembedding' in wanted:
            results['unembedding'] = self._unembedding(x_BLD, table_VD)
        if 'logits' in wanted:
            results['logits'] = results['unembedding'].logits()
        if 'pooled' in wanted or 'classes' in wanted:
            pooler = Linear((config.embed_dim,), ('embed', 'norm'), use_bias=True, name='pooler')
            results['pooled'] = jnp.tanh(pooler(first_BFD))
        if 'classes' in wanted:
            classifier = Linear((config.num_classes,), ('embed', 'type'), use_bias=True, name='classifier')
            dropout = nn.Dropout(config.dropout_rate, deterministic=deterministic)
            results['classes'] = classifier(dropout(results['pooled']))
        if 'spans' in wanted:
            results['spans'] = Linear((2,), ('embed', 'type'), use_bias=True, name='span_head')(x_BLD)
        if self.is_initializing():
            return results
        return results[output] if isinstance(output, str) else tuple(results[name] for name in output)

    def _embedding(
        self, table_VD: jax.Array, dropout: nn.Dropout
    ) -> Callable[..., tuple[jax.Array, Context]]:
        """Returns the function (tokens, segments, positions, types) → (what blocks read, context)."""
        config = self.config
        rows, dtype = config.max_length + config.position_offset, config.compute_dtype
        tables: dict[str, jax.Array] = {}

        def table(name: str, size: int, axis: str) -> jax.Array:
            if name not in tables:
                tables[name] = Embedding((size, config.embed_dim), axis, INIT_STDDEV, name=name)()
            return tables[name]

        norm = Norm(config, name='embedding_norm') if config.embedding_norm else lambda x: x

        def embed(tokens_BL, segments_BL, positions_BL, types_BL):
            if positions_BL is None:
                positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
            x_BLD = lookup(table_VD, tokens_BL, 'vocab', dtype, config.vocab_blocks)
            if config.scale_embeddings:
                x_BLD *= config.embed_dim**0.5
            if config.token_types:
                types_BL = jnp.zeros_like(tokens_BL) if types_BL is None else types_BL
                x_BLD += lookup(table('type_embedding', config.token_types, 'type'), types_BL, 'type', dtype)
            turn = None
            if config.position == 'learned':
                table_PD = table('position_embedding', rows, 'position')
                x_BLD += lookup(table_PD, positions_BL + config.position_offset, 'position', dtype)
            elif config.position == 'sinusoidal':
                x_BLD += sinusoids(positions_BL, config.embed_dim).astype(x_BLD.dtype)
            elif config.position == 'rotary':
                turn = rotation(positions_BL, config)
            x_BLD = constrain(dropout(norm(x_BLD)), 'batch', 'length', 'activation_embed')
            return x_BLD, Context(segments_BL, positions_BL, turn)

        return embed

    def _order(self, tokens_BL: jax.Array, cache: Caches | None, deterministic: bool) -> np.ndarray | None:
        """Returns which position stands at each place, int32 [L], for equal work; None: in order.

        In order stay what is not causal, and training with dropout, which draws by place.
        """
        config = self.config
        if config.structure == 'encoder' or cache is not None or (config.dropout_rate and not deterministic):
            return None
        return placement.balanced_order(*tokens_BL.shape)

    def _bias(
        self, name: str, context: Context, cache: Caches | None, order_L: np.ndarray | None = None
    ) -> jax.Array | None:
        """Returns what relative positions add to the scores, float32 [B or 1, N, L, S]."""
        config = self.config
        if config.position != 'relative':
            return None
        table_UN = parameter(
            self,
            name,
            nn.initializers.normal(INIT_STDDEV),
            (config.relative_buckets, config.num_heads),
            ('bucket', 'heads'),
        )
        queries_BL = context.positions_BL
        if cache is None:  # distances within a segment are those of the indices
            keys_S = jnp.arange(queries_BL.shape[1]) if order_L is None else jnp.asarray(order_L)
            queries_BL = keys_S[None]
        else:
            one = cache[0] if isinstance(cache, tuple) else cache
            keys_S = jnp.arange(one['key'].shape[-2])
        buckets_BLS = relative_buckets(
            queries_BL,
            keys_S,
            bidirectional=name.startswith('encoder') or config.structure == 'encoder',
            num_buckets=config.relative_buckets,
            max_distance=config.relative_distance,
        )
        return jnp.moveaxis(jnp.take(table_UN, buckets_BLS, axis=0), -1, 1)

    def _unembedding(self, x_BLD: jax.Array, table_VD: jax.Array) -> Unembedding:
        """Returns what a logit for each id of the vocabulary is computed from."""
        config = self.config
        if config.head == 'transform':
            axes = ('embed', 'norm')
            x_BLD = Linear((config.embed_dim,), axes, use_bias=True, name='head_dense')(x_BLD)
            x_BLD = Norm(config, name='head_norm')(ACTIVATIONS[config.activation](x_BLD))
        if config.scale_logits:
            x_BLD *= config.embed_dim**-0.5
        kernel_DV = bias_V = None
        if not config.tie_embeddings:
            kernel_DV = Kernel((config.embed_dim, config.vocab_size), ('embed', 'vocab'), name='unembed')()
        if config.output_bias:
            bias_V = parameter(self, 'output_bias', nn.initializers.zeros, (config.vocab_size,), ('vocab',))
        return Unembedding(x_BLD, table_VD if config.tie_embeddings else None, kernel_DV, bias_V)


def separate(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters with 'block_0', 'block_1', … in place of the stacked 'blocks'."""
    others = {name: tree for name, tree in params.items() if name != 'blocks'}
    return others | {f'block_{layer}': block for layer, block in enumerate(unstack(params['blocks']))}


def unstack(tree: Any) -> tuple[Any, ...]:
    """Returns the trees of the layers that stand one after the other in each leaf of a tree."""
    num_layers = len(jax.tree.leaves(tree)[0])
    return tuple(jax.tree.map(operator.itemgetter(layer), tree) for layer in range(num_layers))


class Kernel(nn.Module):
    """A matrix that is used outside of its module."""

    shape: tuple[int, int]
    axes: tuple[str, str]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the matrix, float32."""
        return parameter(self, 'kernel', nn.initializers.normal(INIT_STDDEV), self.shape, self.axes)


class Embedding(nn.Module):
    """A table of vectors; returned whole, since tied embeddings use it twice."""

    shape: tuple[int, int]
    axis: str
    stddev: float

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the table, float32."""
        init = nn.initializers.normal(self.stddev)
        return parameter(self, 'embedding', init, self.shape, (self.axis, 'embed'))


class Block(nn.Module):
    """Attention, in a decoder with an encoder attention to that too, and an MLP, each a residual branch."""

    config: ModelConfig
    deterministic: bool
    causal: bool = True
    cross: bool = False
    balanced: bool = False

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, cache: Cache | None, context: Context
    ) -> tuple[jax.Array, Cache | None]:
        """Returns the new residual stream [B, L, D] and this layer's extended cache."""
        config = self.config
        dropout = nn.Dropout(config.dropout_rate, deterministic=self.deterministic)

        def add(x_BLD: jax.Array, name: str, branch: Callable[[jax.Array], jax.Array]) -> jax.Array:
            """Returns x + branch(norm(x)), or norm(x + branch(x)) where norms come last."""
            norm = Norm(config, name=f'{name}_norm')
            before, after = (norm, lambda x: x) if config.norm_order == 'pre' else (lambda x: x, norm)
            whole_BLD = constrain(before(x_BLD), 'batch', 'length', 'activation_embed')
            y_BLD = constrain(branch(whole_BLD), 'batch', 'residual_length', 'activation_embed')
            return constrain(after(x_BLD + dropout(y_BLD)), 'batch', 'residual_length', 'activation_embed')

        def attention(x_BLD: jax.Array) -> jax.Array:
            nonlocal cache
            y_BLD, cache = Attention(config, self.causal, self.balanced, name='attention')(
                x_BLD, cache, context
            )
            return y_BLD

        def cross_attention(x_BLD: jax.Array) -> jax.Array:
            nonlocal cache
            y_BLD, cache = CrossAttention(config, name='cross_attention')(x_BLD, cache, context)
            return y_BLD

        x_BLD = add(x_BLD, 'attention', attention)
        if self.cross:
            x_BLD = add(x_BLD, 'cross_attention', cross_attention)
        return add(x_BLD, 'mlp', MLP(config, name='mlp')), cache


def scanned_blocks(config: ModelConfig, num_layers: int) -> type[nn.Module]:
    """Returns Block, rematerialised by policy and repeated over a leading axis of its parameters."""
    block = Block
    if config.remat != 'none':
        # By name, since products are float32 (model/contraction.py): what is kept is rounded.
        keep_projections = jax.checkpoint_policies.save_only_these_names(PROJECTION)
        policies = {'dots': keep_projections, 'full': None}
        # Inside a scan nothing can be merged across the boundary, so the barriers are not needed.
        block = nn.remat(Block, prevent_cse=False, policy=policies[config.remat])
    return nn.scan(
        block,
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=num_layers,
        unroll=min(config.unroll, num_layers),
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )
