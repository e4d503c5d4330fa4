"""Model families: presets of one Transformer, and how an experiment's keys resolve against them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from configs.errors import UserError, choose
from model.lora import LoRA
from parallel import rules

STRUCTURES = ('decoder', 'prefix_decoder', 'encoder', 'encoder_decoder')
NORMS = ('layernorm', 'rmsnorm')
NORM_ORDERS = ('pre', 'post')
POSITIONS = ('learned', 'rotary', 'sinusoidal', 'relative')
HEADS = ('linear', 'transform', 'none')
ACTIVATIONS = ('gelu', 'gelu_tanh', 'silu', 'relu')
ROPE_SCALINGS = ('none', 'linear', 'llama3')
ATTENTIONS = ('auto', 'xla', 'blockwise', 'cudnn', 'splash')
SHORTEST_IN_BLOCKS = 8192  # from here on whole scores take gigabytes
SHORTEST_IN_BLOCKS_ON_CPU = 512  # from here on blocks are faster there (docs/log.md)
LONGEST_SPLASH = 65_536  # beyond, its masks take minutes to make (docs/log.md)
REMATS = ('none', 'dots', 'full')
COMPUTE_DTYPES = ('auto', 'float32', 'bfloat16')

# Sizes are rounded up to these, so that they fill matrix units and divide over devices.
VOCAB_MULTIPLE = 128
MLP_MULTIPLE = 64  # of gated MLPs, whose 8/3 · embed_dim is seldom round

MAX_UNROLLED = 12  # layers; each adds half a second to compilation

# What all have unless they say otherwise.
COMMON: dict[str, Any] = {
    'structure': 'decoder',
    'norm_order': 'pre',
    'embedding_norm': False,
    'gated_mlp': False,
    'use_bias': True,
    'qk_norm': False,
    'scale_attention': True,
    'scale_embeddings': False,
    'scale_logits': False,
    'token_types': 0,
    'head': 'linear',
    'output_bias': False,
    'tie_embeddings': True,
    'dropout_rate': 0.1,  # with which it was trained; what was trained without is ruined by it (docs/log.md)
}
FAMILIES: dict[str, dict[str, Any]] = {
    # Radford et al. 2019, and the released code: pre-norm, tanh approximation of GELU.
    'gpt2': {
        'norm': 'layernorm',
        'norm_epsilon': 1e-5,
        'position': 'learned',
        'activation': 'gelu_tanh',
    },
    # Touvron et al. 2023 (LLaMA; grouped heads since LLaMA 2).
    'llama': {
        'norm': 'rmsnorm',
        'norm_epsilon': 1e-5,
        'position': 'rotary',
        'activation': 'silu',
        'gated_mlp': True,
        'use_bias': False,
        'tie_embeddings': False,
        'dropout_rate': 0.0,
    },
    # Devlin et al. 2019, and the released code.
    'bert': {
        'structure': 'encoder',
        'norm': 'layernorm',
        'norm_order': 'post',
        'norm_epsilon': 1e-12,
        'position': 'learned',
        'activation': 'gelu',
        'embedding_norm': True,
        'token_types': 2,
        'head': 'transform',
        'output_bias': True,
    },
    # Raffel et al. 2020 as revised in T5 1.1 (Shazeer 2020); the first T5 has activation='relu',
    # gated_mlp=False, tie_embeddings=True and scale_logits=True.
    't5': {
        'structure': 'encoder_decoder',
        'norm': 'rmsnorm',
        'norm_epsilon': 1e-6,
        'position': 'relative',
        'activation': 'gelu_tanh',
        'gated_mlp': True,
        'use_bias': False,
        'scale_attention': False,
        'tie_embeddings': False,
    },
    # Vaswani et al. 2017.
    'transformer': {
        'structure': 'encoder_decoder',
        'norm': 'layernorm',
        'norm_order': 'post',
        'norm_epsilon': 1e-5,
        'position': 'sinusoidal',
        'activation': 'relu',
        'scale_embeddings': True,
    },
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Every property of a Transformer, resolved. The keys are explained in configs/base.py."""

    family: str
    structure: str
    num_layers: int
    encoder_layers: int  # 0 but in an encoder-decoder
    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    vocab_size: int
    max_length: int
    norm: str
    norm_order: str
    norm_epsilon: float
    embedding_norm: bool
    position: str
    position_offset: int
    relative_buckets: int
    relative_distance: int
    rope_theta: float
    rope_scaling: str
    rope_factor: float
    rope_low_factor: float
    rope_high_factor: float
    rope_original_length: int
    sliding_window: int
    activation: str
    gated_mlp: bool
    use_bias: bool
    qkv_bias: bool
    qk_norm: bool
    scale_attention: bool
    scale_embeddings: bool
    scale_logits: bool
    token_types: int
    head: str
    output_bias: bool
    pooler: bool
    num_classes: int
    span_head: bool
    tie_embeddings: bool
    dropout_rate: float
    attention: str
    remat: str
    vocab_blocks: int
    compute_dtype: str
    lora: LoRA | None  # adapters beside the kernels
    unroll: int  # blocks that are compiled one by one, in each pass of the scan over layers


def resolve(config: Any, *, vocab_size: int, platform: str | None = None) -> ModelConfig:
    """Resolves an experiment's model against its family.

    Args:
      config: the whole experiment: `model`, `lora`, `sequence_length`, `target_length` and `compute_dtype`
        are read.
      vocab_size: ids of the tokenizer.
      platform: 'cpu', 'gpu' or 'tpu', on which the model is to run; None: the one JAX finds here.

    Raises:
      UserError: for an unknown name, or keys that cannot go together.
    """
    platform = platform or jax.default_backend()
    keys = config.model.to_dict()
    del keys['embedding_vectors']  # where training starts, not what the model is
    preset = COMMON | FAMILIES[choose('model.family', keys['family'], FAMILIES)]
    keys.update({key: value for key, value in preset.items() if keys[key] is None})

    def default(key: str, value: Any) -> None:
        if keys[key] is None:
            keys[key] = value

    for key in ('num_layers', 'embed_dim', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim'):
        if keys[key] is not None and keys[key] < 1:
            raise UserError(f'model.{key}={keys[key]} must be at least 1.')
    if keys['head_dim'] is None and keys['embed_dim'] % keys['num_heads']:
        raise UserError(
            f'model.embed_dim={keys["embed_dim"]} does not divide over model.num_heads={keys["num_heads"]}; '
            'change one of them, or set model.head_dim.'
        )
    default('head_dim', keys['embed_dim'] // keys['num_heads'])
    default('num_kv_heads', keys['num_heads'])
    default('mlp_dim', _mlp_dim(keys['embed_dim'], gated=keys['gated_mlp']))
    default('vocab_size', round_up(vocab_size, VOCAB_MULTIPLE))
    default('qkv_bias', keys['use_bias'])
    both = keys['structure'] == 'encoder_decoder'
    default('encoder_layers', keys['num_layers'] if both else 0)
    longest = max(config.sequence_length, (config.target_length or 0) if both else 0)
    default('max_length', longest)
    default('pooler', keys['num_classes'] > 0)
    lora = config.lora
    keys['lora'] = LoRA(lora.rank, lora.alpha, tuple(lora.targets)) if lora.rank else None
    keys['compute_dtype'] = compute_dtype(config.compute_dtype, platform)
    # XLA's CPU back end copies what a scan carries from the forward to the backward pass: a tenth of a
    # step. Rematerialisation needs the scan, lest the compiler merge what is computed twice.
    unrolled = platform == 'cpu' and keys['remat'] == 'none' and keys['num_layers'] <= MAX_UNROLLED
    keys['unroll'] = keys['num_layers'] if unrolled else 1

    resolved = ModelConfig(**keys)
    _check(resolved, vocab_size=vocab_size, sequence_length=longest, platform=platform)
    return dataclasses.replace(resolved, attention=_attention(resolved, config.sequence_length, platform))


def check_layout(config: ModelConfig, mesh_shape: Any) -> None:
    """Raises UserError if the model cannot be cut over a mesh ({mesh axis: devices})."""
    sizes = {
        'model.embed_dim': ('embed', config.embed_dim),
        'model.num_heads': ('heads', config.num_heads),
        'model.num_kv_heads': ('kv_heads', config.num_kv_heads),
        'model.mlp_dim': ('mlp', config.mlp_dim),
        'model.vocab_size': ('vocab', config.vocab_size),
    }
    rules.check_divides(sizes, mesh_shape)
    ids = config.vocab_size // rules.num_shards('vocab', mesh_shape)
    if ids % config.vocab_blocks:
        raise UserError(
            f'model.vocab_blocks={config.vocab_blocks} does not divide the {ids} ids that a device has of '
            f'model.vocab_size={config.vocab_size}; use a divisor of {ids}.'
        )


def _mlp_dim(embed_dim: int, *, gated: bool) -> int:
    """Two thirds of 4 · embed_dim when gated, so that three matrices cost as much as two (Shazeer 2020)."""
    return round_up(-(-8 * embed_dim // 3), MLP_MULTIPLE) if gated else 4 * embed_dim


def round_up(value: int, multiple: int) -> int:
    """Returns the least multiple that is no less than `value`."""
    return -(-value // multiple) * multiple


def compute_dtype(name: str, platform: str) -> str:
    """Returns the dtype that `compute_dtype` means on a platform; UserError for an unknown one."""
    choose('compute_dtype', name, COMPUTE_DTYPES)
    if name == 'auto':
        return 'float32' if platform == 'cpu' else 'bfloat16'
    return name


def _check(config: ModelConfig, *, vocab_size: int, sequence_length: int, platform: str) -> None:
    """Raises UserError for values that are unknown or cannot go together."""
    choose('model.structure', config.structure, STRUCTURES)
    choose('model.norm', config.norm, NORMS)
    choose('model.norm_order', config.norm_order, NORM_ORDERS)
    choose('model.head', config.head, HEADS)
    choose('model.position', config.position, POSITIONS)
    choose('model.rope_scaling', config.rope_scaling, ROPE_SCALINGS)
    choose('model.activation', config.activation, ACTIVATIONS)
    choose('model.attention', config.attention, ATTENTIONS)
    choose('model.remat', config.remat, REMATS)
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f'model.num_heads={config.num_heads} is not a multiple of '
            f'model.num_kv_heads={config.num_kv_heads}; each key/value head serves equally many query heads.'
        )
    if config.position == 'rotary' and config.head_dim % 2:
        raise UserError(
            f'model.head_dim={config.head_dim} is odd, and rotary positions turn pairs; use an even one.'
        )
    if (config.encoder_layers > 0) != (config.structure == 'encoder_decoder'):
        raise UserError(
            f'model.encoder_layers={config.encoder_layers} does not go with model.structure='
            f"{config.structure!r}: an 'encoder_decoder' has at least 1, the others have 0."
        )
    if config.num_classes and not config.pooler:
        raise UserError(
            f'model.num_classes={config.num_classes} needs model.pooler=True, whose output it divides.'
        )
    if config.position == 'sinusoidal' and config.embed_dim % 2:
        raise UserError(
            f'model.embed_dim={config.embed_dim} is odd, and sinusoids come in pairs; use an even one.'
        )
    if config.position == 'relative' and not 4 <= config.relative_buckets < 2 * config.relative_distance:
        raise UserError(
            f'model.relative_buckets={config.relative_buckets} must be at least 4, and less than twice '
            f'model.relative_distance={config.relative_distance}.'
        )
    if config.sliding_window and config.structure != 'decoder':
        raise UserError(
            f'model.sliding_window={config.sliding_window} is for decoders alone; set it to 0, or '
            "model.structure='decoder'."
        )
    if config.sliding_window < 0:
        raise UserError(
            f'model.sliding_window={config.sliding_window} must be at least 0 (0: all positions).'
        )
    if sequence_length > config.max_length:
        raise UserError(
            f'sequence_length={sequence_length} is longer than model.max_length={config.max_length}; '
            'shorten the one or raise the other.'
        )
    if config.vocab_size < vocab_size:
        raise UserError(
            f'model.vocab_size={config.vocab_size} is too small for the {vocab_size} ids of the tokenizer; '
            f'leave it out, or use at least {vocab_size}.'
        )
    if not 0 <= config.dropout_rate < 1:
        raise UserError(f'model.dropout_rate={config.dropout_rate} is not in [0, 1).')
    if config.attention == 'cudnn' and not _cudnn_fits(config, platform):
        raise UserError(
            "model.attention='cudnn' needs a GPU, compute_dtype='bfloat16' and a head_dim that is a multiple "
            f'of 8 up to 128; here are {platform}, {config.compute_dtype} and {config.head_dim}. '
            "Use 'auto' or 'xla'."
        )
    if config.attention == 'splash' and not _splash_fits(sequence_length, platform):
        raise UserError(
            "model.attention='splash' needs a TPU and a sequence_length that is a multiple of 128; "
            f"here are {platform} and {sequence_length}. Use 'auto' or 'xla'."
        )


def _attention(config: ModelConfig, sequence_length: int, platform: str) -> str:
    """Returns the back end that 'auto' stands for."""
    if config.attention != 'auto':
        return config.attention
    if config.position == 'relative' or config.structure == 'prefix_decoder':
        return 'xla'  # the kernels take neither biases nor prefixes
    if _cudnn_fits(config, platform):
        return 'cudnn'
    if _splash_fits(sequence_length, platform) and sequence_length <= LONGEST_SPLASH:
        return 'splash'
    shortest = SHORTEST_IN_BLOCKS_ON_CPU if platform == 'cpu' else SHORTEST_IN_BLOCKS
    return 'blockwise' if sequence_length >= shortest else 'xla'


def _cudnn_fits(config: ModelConfig, platform: str) -> bool:
    width_fits = config.head_dim % 8 == 0 and config.head_dim <= 128
    return platform in ('gpu', 'cuda') and config.compute_dtype == 'bfloat16' and width_fits


def _splash_fits(sequence_length: int, platform: str) -> bool:
    return platform == 'tpu' and sequence_length % 128 == 0
