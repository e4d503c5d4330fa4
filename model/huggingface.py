"""Hugging Face's config.json of each architecture, and where its tensors stand.

Sources: the published config.json files of GPT-2, Llama, Mistral, Qwen2, Qwen3, SmolLM2, BERT, RoBERTa,
MiniLM, T5 and Marian, and the configuration classes of transformers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_type_hints

from configs.errors import UserError
from model import weight_maps
from model.families import ModelConfig
from model.weight_maps import WeightMap

WEIGHT_MAPS = {
    'gpt2': weight_maps.GPT2,
    'bert': weight_maps.BERT,
    'roberta': weight_maps.ROBERTA,
    't5': weight_maps.T5,
    'marian': weight_maps.MARIAN,
}
CLASSIFIERS = {'bert': weight_maps.BERT_CLASSIFIER, 'roberta': weight_maps.ROBERTA_CLASSIFIER}


def weight_map(values: dict[str, Any], names: Collection[str] = ()) -> WeightMap:
    """Returns where the arrays of a config.json's model stand; `names`: of the tensors, if there are any."""
    model_type = values['model_type']
    if model_type == 't5' and str(values.get('feed_forward_proj')).startswith('gated-'):
        return weight_maps.T5_GATED
    made_for = str((values.get('architectures') or [''])[0])
    if model_type in CLASSIFIERS and (
        any(name.startswith('classifier.') for name in names)
        or (not names and made_for.endswith('ForSequenceClassification'))
    ):
        return CLASSIFIERS[model_type]
    return WEIGHT_MAPS.get(model_type, weight_maps.LLAMA)  # whose names all others use


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
    '_name_or_path', 'activation_dropout', 'architectures', 'attention_dropout',
    'attention_probs_dropout_prob', 'attn_pdrop', 'auto_map', 'bos_token_id', 'classif_dropout',
    'classifier_dropout', 'decoder_layerdrop', 'directionality', 'dropout', 'dropout_rate', 'dtype',
    'embd_pdrop', 'encoder_layerdrop', 'eos_token_id', 'gradient_checkpointing', 'hidden_dropout_prob',
    'id2label', 'init_std', 'initializer_factor', 'initializer_range', 'is_llama_config',
    'keys_to_ignore_at_inference', 'label2id', 'max_length', 'max_window_layers', 'model_type', 'n_ctx',
    'num_hidden_layers', 'output_past', 'pad_token_id', 'pooler_fc_size', 'pooler_num_attention_heads',
    'pooler_num_fc_layers', 'pooler_size_per_head', 'pooler_type', 'pretraining_tp', 'problem_type',
    'reorder_and_upcast_attn', 'resid_pdrop', 'return_dict', 'summary_activation',
    'summary_first_dropout', 'summary_proj_to_labels', 'summary_type', 'summary_use_proj',
    'task_specific_params', 'torch_dtype', 'transformers.js_config', 'transformers_version',
    'unsloth_fixed', 'unsloth_version', 'use_cache',
))
# fmt: on


class _Reader:
    """Reads a config.json key by key, so that one which nobody read can be refused."""

    def __init__(self, values: dict[str, Any], origin: str, names: Collection[str] = ()):
        self._values = values
        self._origin = origin
        self.names = names  # of the tensors
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
        if self._values.get('quantization_config'):
            raise UserError(
                f'{self._origin} says that the tensors are quantized, which Lathe reads from GGUF alone; '
                'take the model that was quantized, or its GGUF.'
            )
        for key in sorted(set(self._values) - self._read - WITHOUT_EFFECT):
            if self._values[key] not in (None, False, [], {}):
                raise UserError(
                    f'{self._origin}: {key}={self._values[key]!r} is not known to Lathe, so its effect '
                    'would be missing. Remove it from config.json if it has none.'
                )


KINDS = get_type_hints(ModelConfig)  # of each key of config.model


def model_keys(values: dict[str, Any], origin: str, names: Collection[str] = ()) -> dict[str, Any]:
    """Returns the keys of `config.model` that make the model of a config.json.

    `names` are those of the tensors, which tell with what heads a BERT was saved.

    Raises UserError, which names the key, for an architecture or option that Lathe does not compute.
    """
    model_type = values.get('model_type')
    if not isinstance(model_type, str) or model_type not in PARSERS:
        raise UserError(f'{origin}: model_type={model_type!r} is not supported, only {", ".join(PARSERS)}.')
    read = _Reader(values, origin, names)
    try:
        keys = PARSERS[model_type](read)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f'{origin} has a value of a wrong type ({error}); download it again.') from error
    read.finish()
    for key, value in keys.items():
        kind = KINDS[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(
                f'{origin}: what gives model.{key} is {value!r}, not {kind.__name__}; download it again.'
            )
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


def _bert(read: _Reader, *, offset: int = 0) -> dict[str, Any]:
    read.only('position_embedding_type', 'absolute')
    read.only('is_decoder', False)
    read.only('add_cross_attention', False)
    read.only('tie_word_embeddings', True)

    def has(*endings: str) -> bool:
        return any(name.endswith(endings) for name in read.names)

    masked_words = has('transform.dense.weight', 'lm_head.dense.weight')
    classes = 2 if has('seq_relationship.weight') else 0
    if has('classifier.weight', 'classifier.out_proj.weight'):
        classes = len(read('id2label', None) or (0, 1))
    return {
        'family': 'bert',
        'num_layers': read('num_hidden_layers'),
        'embed_dim': read('hidden_size'),
        'num_heads': read('num_attention_heads'),
        'mlp_dim': read('intermediate_size'),
        'max_length': read('max_position_embeddings') - offset,
        'position_offset': offset,
        'vocab_size': read('vocab_size'),
        'token_types': read('type_vocab_size', 2),
        'norm_epsilon': read('layer_norm_eps', 1e-12),
        'activation': _activation(read, 'hidden_act', 'gelu'),
        'head': 'transform' if masked_words else 'none',
        'output_bias': masked_words,
        'pooler': has('pooler.dense.weight', 'classifier.dense.weight'),
        'num_classes': classes,
        'span_head': has('qa_outputs.weight'),
    }


def _roberta(read: _Reader) -> dict[str, Any]:
    return _bert(read, offset=read('pad_token_id', 1) + 1)  # positions are counted from there


def _t5(read: _Reader) -> dict[str, Any]:
    read.only('is_encoder_decoder', True)
    read.only('decoder_start_token_id', read('pad_token_id', 0))
    read.only('is_decoder', False)
    tied = read('tie_word_embeddings', True)
    layers = read('num_layers')
    kind, _, name = read('feed_forward_proj', 'relu').rpartition('-')
    for consequence in ('dense_act_fn', 'is_gated_act'):
        read(consequence, None)
    if kind not in ('', 'gated') or name not in ACTIVATIONS:
        raise UserError(
            f"feed_forward_proj={kind}-{name} is not supported, only 'relu', 'gated-gelu' and their like."
        )
    return {
        'family': 't5',
        'num_layers': read('num_decoder_layers', None) or layers,
        'encoder_layers': layers,
        'embed_dim': read('d_model'),
        'num_heads': read('num_heads'),
        'head_dim': read('d_kv'),
        'mlp_dim': read('d_ff'),
        'max_length': read('n_positions', 512),
        'vocab_size': read('vocab_size'),
        'norm_epsilon': read('layer_norm_epsilon', 1e-6),
        'relative_buckets': read('relative_attention_num_buckets', 32),
        'relative_distance': read('relative_attention_max_distance', 128),
        'gated_mlp': kind == 'gated',
        'activation': 'gelu_tanh' if (kind, name) == ('gated', 'gelu') else ACTIVATIONS[name],
        'tie_embeddings': tied,
        'scale_logits': read('scale_decoder_outputs', tied),
    }


def _marian(read: _Reader) -> dict[str, Any]:
    read.only('is_encoder_decoder', True)
    read.only('decoder_start_token_id', read('pad_token_id', None))
    read.only('decoder_vocab_size', None, read('vocab_size'))
    read.only('share_encoder_decoder_embeddings', True)
    read.only('decoder_attention_heads', read('encoder_attention_heads'))
    read.only('decoder_ffn_dim', read('encoder_ffn_dim'))
    read.only('forced_eos_token_id', None)
    read.only('is_decoder', False)
    for key in ('normalize_before', 'normalize_embedding', 'add_final_layer_norm', 'add_bias_logits'):
        read.only(key, False)
    read.only('static_position_embeddings', True)
    return {
        'family': 'transformer',
        'num_layers': read('decoder_layers'),
        'encoder_layers': read('encoder_layers'),
        'embed_dim': read('d_model'),
        'num_heads': read('encoder_attention_heads'),
        'mlp_dim': read('encoder_ffn_dim'),
        'max_length': read('max_position_embeddings', 1024),
        'vocab_size': read('vocab_size'),
        'activation': _activation(read, 'activation_function', 'gelu'),
        'scale_embeddings': read('scale_embedding', False),
        'output_bias': 'final_logits_bias' in read.names,
        'tie_embeddings': read('tie_word_embeddings', True),
    }


PARSERS = {
    'gpt2': _gpt2,
    'llama': _llama,
    'mistral': _mistral,
    'qwen2': _qwen2,
    'qwen3': _qwen3,
    'bert': _bert,
    'roberta': _roberta,
    't5': _t5,
    'marian': _marian,
}
