"""Hugging Face's format of the families: what config.json says, and where each of our arrays stands.

One table per family serves import and export. Sources: the published config.json files and the tensor
names in the published weights of GPT-2, Llama, Mistral, Qwen2, Qwen3 and SmolLM2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from configs.errors import UserError
from model.families import ModelConfig

# ---- Arrays --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where one of our arrays stands in their files.

    Ours are kernels [inputs…, outputs…], tables [ids, D] and vectors; theirs are matrices and vectors.
    """

    name: str  # of their tensor; '{}' stands for the layer
    transposed: bool = False  # [out, in], as torch's Linear has it
    inputs: int = 1  # axes of our kernel that are inputs
    part: int = 0  # which of the equal parts of their outputs is ours
    parts: int = 1

    @property
    def stacked(self) -> bool:
        """Is it one of each layer, which ours stack on their first axis?"""
        return '{}' in self.name

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of their tensor for one of ours (of one layer)."""
        if len(ours) == 1 or self.inputs == 0:
            return (math.prod(ours) * self.parts,)
        rows, columns = math.prod(ours[: self.inputs]), math.prod(ours[self.inputs :]) * self.parts
        return (columns, rows) if self.transposed else (rows, columns)

    def to_ours(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns our array of `shape` (of one layer), float32, out of their tensor."""
        array = theirs.T if self.transposed else theirs
        return np.split(array, self.parts, axis=-1)[self.part].reshape(shape).astype(np.float32)

    def to_theirs(self, ours: list[np.ndarray]) -> np.ndarray:
        """Returns their tensor out of our arrays that are its parts, in order."""
        own = dataclasses.replace(self, transposed=False, parts=1)
        flat = [array.reshape(own.shape(array.shape)) for array in ours]
        array = np.concatenate(flat, axis=-1)
        return np.ascontiguousarray(array.T if self.transposed else array)


def _linear(ours: str, theirs: str, *, inputs: int = 1) -> dict[str, Tensor]:
    return {
        f'{ours}/kernel': Tensor(f'{theirs}.weight', transposed=True, inputs=inputs),
        f'{ours}/bias': Tensor(f'{theirs}.bias', inputs=0),
    }


def _conv1d(ours: str, theirs: str, *, inputs: int = 1, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
    """GPT-2 keeps its kernels as [in, out], and query, key and value side by side."""
    return {
        f'{ours}/kernel': Tensor(f'{theirs}.weight', inputs=inputs, part=part, parts=parts),
        f'{ours}/bias': Tensor(f'{theirs}.bias', inputs=0, part=part, parts=parts),
    }


def _norm(ours: str, theirs: str) -> dict[str, Tensor]:
    return {f'{ours}/scale': Tensor(f'{theirs}.weight'), f'{ours}/bias': Tensor(f'{theirs}.bias')}


GPT2 = {
    'token_embedding/embedding': Tensor('transformer.wte.weight'),
    'position_embedding/embedding': Tensor('transformer.wpe.weight'),
    **_norm('blocks/attention_norm', 'transformer.h.{}.ln_1'),
    **_conv1d('blocks/attention/query', 'transformer.h.{}.attn.c_attn', part=0, parts=3),
    **_conv1d('blocks/attention/key', 'transformer.h.{}.attn.c_attn', part=1, parts=3),
    **_conv1d('blocks/attention/value', 'transformer.h.{}.attn.c_attn', part=2, parts=3),
    **_conv1d('blocks/attention/out', 'transformer.h.{}.attn.c_proj', inputs=2),
    **_norm('blocks/mlp_norm', 'transformer.h.{}.ln_2'),
    **_conv1d('blocks/mlp/up', 'transformer.h.{}.mlp.c_fc'),
    **_conv1d('blocks/mlp/down', 'transformer.h.{}.mlp.c_proj'),
    **_norm('final_norm', 'transformer.ln_f'),
    'unembed/kernel': Tensor('lm_head.weight', transposed=True),
}

LLAMA = {
    'token_embedding/embedding': Tensor('model.embed_tokens.weight'),
    **_norm('blocks/attention_norm', 'model.layers.{}.input_layernorm'),
    **_linear('blocks/attention/query', 'model.layers.{}.self_attn.q_proj'),
    **_linear('blocks/attention/key', 'model.layers.{}.self_attn.k_proj'),
    **_linear('blocks/attention/value', 'model.layers.{}.self_attn.v_proj'),
    **_norm('blocks/attention/query_norm', 'model.layers.{}.self_attn.q_norm'),
    **_norm('blocks/attention/key_norm', 'model.layers.{}.self_attn.k_norm'),
    **_linear('blocks/attention/out', 'model.layers.{}.self_attn.o_proj', inputs=2),
    **_norm('blocks/mlp_norm', 'model.layers.{}.post_attention_layernorm'),
    **_linear('blocks/mlp/gate', 'model.layers.{}.mlp.gate_proj'),
    **_linear('blocks/mlp/up', 'model.layers.{}.mlp.up_proj'),
    **_linear('blocks/mlp/down', 'model.layers.{}.mlp.down_proj'),
    **_norm('final_norm', 'model.norm'),
    'unembed/kernel': Tensor('lm_head.weight', transposed=True),
}

TENSORS = {'gpt2': GPT2, 'llama': LLAMA}


def table_of(config_json: dict[str, Any]) -> str:
    """Returns which table of TENSORS holds for an architecture: all but GPT-2 name theirs as LLaMA does."""
    return 'gpt2' if config_json['model_type'] == 'gpt2' else 'llama'


BASE_PREFIX = {'gpt2': 'transformer.', 'llama': 'model.'}  # absent where only the base model was saved
# Constants that older versions of transformers saved among the weights.
BUFFERS = r'.*\.(attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)'

# ---- config.json -> config.model ---------------------------------------------------------------------

ACTIVATIONS = {
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu': 'gelu',
    'silu': 'silu',
    'swish': 'silu',
    'relu': 'relu',
}

# What does not change the logits: names, versions, ids of tokens, training alone, defaults of generation.
# fmt: off
WITHOUT_EFFECT = frozenset((
    '_name_or_path', 'architectures', 'attention_dropout', 'attn_pdrop', 'auto_map', 'bos_token_id',
    'dtype', 'embd_pdrop', 'eos_token_id', 'gradient_checkpointing', 'initializer_range', 'is_llama_config',
    'keys_to_ignore_at_inference', 'max_length', 'max_window_layers', 'model_type', 'n_ctx', 'pad_token_id',
    'pretraining_tp', 'reorder_and_upcast_attn', 'resid_pdrop', 'return_dict', 'summary_activation',
    'summary_first_dropout', 'summary_proj_to_labels', 'summary_type', 'summary_use_proj',
    'task_specific_params', 'torch_dtype', 'transformers.js_config', 'transformers_version',
    'unsloth_fixed', 'unsloth_version', 'use_cache',
))
# fmt: on


class _Reader:
    """Reads a config.json key by key, so that one which nobody read can be refused."""

    def __init__(self, values: dict[str, Any], origin: str):
        self._values = values
        self._origin = origin
        self._read = {'model_type'}

    def __call__(self, key: str, *default: Any) -> Any:
        """Returns the value, or the default where it is absent; UserError without one."""
        self._read.add(key)
        if key not in self._values and not default:
            raise UserError(f'{self._origin} has no {key!r}; it must say the sizes of the model.')
        return self._values.get(key, *default)

    def only(self, key: str, *allowed: Any) -> None:
        """Raises UserError if the value is not among those that Lathe computes; absent is the first."""
        value = self(key, allowed[0])
        if value not in allowed:
            supported = ' or '.join(map(repr, allowed))
            raise UserError(f'{self._origin}: {key}={value!r} is not supported, only {supported}.')

    def finish(self) -> None:
        """Raises UserError for a key with a value that nobody read and that may change the logits."""
        for key in sorted(set(self._values) - self._read - WITHOUT_EFFECT):
            if self._values[key] not in (None, False, [], {}):
                raise UserError(
                    f'{self._origin}: {key}={self._values[key]!r} is not known to Lathe, so its effect '
                    'would be missing. Remove it from config.json if it has none.'
                )


def model_keys(values: dict[str, Any], origin: str) -> dict[str, Any]:
    """Returns the keys of `config.model` that make the model of a config.json.

    Raises UserError, which names the key, for an architecture or option that Lathe does not compute.
    """
    model_type = values.get('model_type')
    if model_type not in PARSERS:
        raise UserError(f'{origin}: model_type={model_type!r} is not supported, only {", ".join(PARSERS)}.')
    read = _Reader(values, origin)
    keys = PARSERS[model_type](read)
    read.finish()
    return keys


def _activation(read: _Reader, key: str, default: str) -> str:
    read.only(key, default, *ACTIVATIONS)
    return ACTIVATIONS[read(key, default)]


def _gpt2(read: _Reader) -> dict[str, Any]:
    read.only('scale_attn_weights', True)
    read.only('scale_attn_by_inverse_layer_idx', False)
    read.only('add_cross_attention', False)
    return {
        'family': 'gpt2',
        'num_layers': read('n_layer'),
        'embed_dim': read('n_embd'),
        'num_heads': read('n_head'),
        'mlp_dim': read('n_inner', None) or 4 * read('n_embd'),
        'max_length': read('n_positions'),
        'vocab_size': read('vocab_size'),
        'norm_epsilon': read('layer_norm_epsilon', 1e-5),
        'activation': _activation(read, 'activation_function', 'gelu_new'),
        'tie_embeddings': read('tie_word_embeddings', True),
    }


def _llama(
    read: _Reader,
    *,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    sliding_window: int | None = None,
    num_kv_heads: int | None = None,
) -> dict[str, Any]:
    """The arguments are what the architecture does, or assumes, where config.json says nothing."""
    read.only('attention_bias', False)
    read.only('mlp_bias', False)
    heads, width = read('num_attention_heads'), read('hidden_size')
    return {
        'family': 'llama',
        'num_layers': read('num_hidden_layers'),
        'embed_dim': width,
        'num_heads': heads,
        'num_kv_heads': read('num_key_value_heads', num_kv_heads) or heads,
        'head_dim': read('head_dim', None) or width // heads,
        'mlp_dim': read('intermediate_size'),
        'max_length': read('max_position_embeddings'),
        'vocab_size': read('vocab_size'),
        'norm_epsilon': read('rms_norm_eps', 1e-6),
        'activation': _activation(read, 'hidden_act', 'silu'),
        'qkv_bias': qkv_bias,
        'qk_norm': qk_norm,
        'sliding_window': read('sliding_window', sliding_window) or 0,
        'tie_embeddings': read('tie_word_embeddings', False),
        **_rotary(read),
    }


def _rotary(read: _Reader) -> dict[str, Any]:
    """Reads `rope_parameters`, or `rope_theta` and `rope_scaling`, as older files have it."""
    read.only('partial_rotary_factor', 1.0, 1, None)
    read.only('rope_interleaved', False)
    theta = read('rope_theta', 10000.0)
    options = read('rope_scaling', None) or {}
    options = _Reader(options | (read('rope_parameters', None) or {}), 'rope_scaling of config.json')
    kind = options('rope_type', None) or options('type', None) or 'default'
    options('type', None)
    keys = {'rope_theta': float(options('rope_theta', None) or theta)}
    options.only('partial_rotary_factor', 1.0, 1, None)
    if kind == 'linear':
        keys |= {'rope_scaling': 'linear', 'rope_factor': float(options('factor'))}
    elif kind == 'llama3':
        keys |= {
            'rope_scaling': 'llama3',
            'rope_factor': float(options('factor')),
            'rope_low_factor': float(options('low_freq_factor')),
            'rope_high_factor': float(options('high_freq_factor')),
            'rope_original_length': options('original_max_position_embeddings'),
        }
    elif kind != 'default':
        raise UserError(f"rope_type={kind!r} is not supported, only 'default', 'linear' and 'llama3'.")
    options.finish()
    return keys


def _mistral(read: _Reader) -> dict[str, Any]:
    return _llama(read, sliding_window=4096, num_kv_heads=8)


def _qwen(read: _Reader, **traits: Any) -> dict[str, Any]:
    """Qwen's sliding_window counts only if use_sliding_window says so, and for some layers alone."""
    read.only('use_sliding_window', False)
    read.only('layer_types', None, ['full_attention'] * read('num_hidden_layers'))
    return _llama(read, **traits) | {'sliding_window': 0}


def _qwen2(read: _Reader) -> dict[str, Any]:
    return _qwen(read, qkv_bias=True, num_kv_heads=32)


def _qwen3(read: _Reader) -> dict[str, Any]:
    read('head_dim')  # whose default is not hidden_size / num_attention_heads
    return _qwen(read, qk_norm=True, num_kv_heads=32)


PARSERS = {'gpt2': _gpt2, 'llama': _llama, 'mistral': _mistral, 'qwen2': _qwen2, 'qwen3': _qwen3}

# ---- config.model -> config.json ---------------------------------------------------------------------


GPT2_TRAITS = {
    'norm': 'layernorm',
    'position': 'learned',
    'gated_mlp': False,
    'use_bias': True,
    'qkv_bias': True,
    'qk_norm': False,
    'sliding_window': 0,
}
LLAMA_TRAITS = {'norm': 'rmsnorm', 'position': 'rotary', 'gated_mlp': True, 'use_bias': False}


def _has(config: ModelConfig, traits: dict[str, Any]) -> bool:
    return all(getattr(config, key) == value for key, value in traits.items())


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Returns the config.json of a model; UserError if no architecture of transformers computes it."""
    shared = {
        'vocab_size': config.vocab_size,
        'tie_word_embeddings': config.tie_embeddings,
        'dtype': 'float32',
    }
    whole_heads = config.head_dim * config.num_heads == config.embed_dim
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if _has(config, GPT2_TRAITS | {'num_kv_heads': config.num_heads}) and whole_heads:
        return shared | {
            'model_type': 'gpt2',
            'architectures': ['GPT2LMHeadModel'],
            'n_layer': config.num_layers,
            'n_embd': config.embed_dim,
            'n_head': config.num_heads,
            'n_inner': config.mlp_dim,
            'n_positions': config.max_length,
            'layer_norm_epsilon': config.norm_epsilon,
            'activation_function': names[config.activation],
        }
    kinds = {
        (False, False, False): ('llama', 'LlamaForCausalLM'),
        (False, False, True): ('mistral', 'MistralForCausalLM'),
        (True, False, False): ('qwen2', 'Qwen2ForCausalLM'),
        (False, True, False): ('qwen3', 'Qwen3ForCausalLM'),
    }
    kind = kinds.get((config.qkv_bias, config.qk_norm, config.sliding_window > 0))
    if not _has(config, LLAMA_TRAITS) or kind is None:
        shown = ', '.join(f'{key}={getattr(config, key)}' for key in GPT2_TRAITS)
        raise UserError(
            f'no architecture of transformers that Lathe writes ({", ".join(PARSERS)}) has model.{shown}.'
        )
    rotary: dict[str, Any] = {'rope_type': 'default', 'rope_theta': config.rope_theta}
    if config.rope_scaling != 'none':
        rotary |= {'rope_type': config.rope_scaling, 'factor': config.rope_factor}
    if config.rope_scaling == 'llama3':
        rotary |= {
            'low_freq_factor': config.rope_low_factor,
            'high_freq_factor': config.rope_high_factor,
            'original_max_position_embeddings': config.rope_original_length,
        }
    return shared | {
        'model_type': kind[0],
        'architectures': [kind[1]],
        'num_hidden_layers': config.num_layers,
        'hidden_size': config.embed_dim,
        'num_attention_heads': config.num_heads,
        'num_key_value_heads': config.num_kv_heads,
        'head_dim': config.head_dim,
        'intermediate_size': config.mlp_dim,
        'max_position_embeddings': config.max_length,
        'rms_norm_eps': config.norm_epsilon,
        'hidden_act': names[config.activation],
        'rope_parameters': rotary,
        'rope_theta': config.rope_theta,  # and rope_scaling, for readers older than transformers 5
        'rope_scaling': None if config.rope_scaling == 'none' else rotary,
        **({'sliding_window': config.sliding_window} if config.sliding_window else {}),
    }
