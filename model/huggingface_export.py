"""A model's config.json in Hugging Face's format: the architecture of transformers that computes the same."""

from __future__ import annotations

from typing import Any

from configs.errors import UserError
from model.families import ModelConfig
from model.huggingface import ACTIVATIONS, PARSERS

# What each architecture computes, as keys of the model; those that its config.json says are left out.
COMMON_TRAITS = {
    'structure': 'decoder',
    'norm': 'layernorm',
    'norm_order': 'pre',
    'embedding_norm': False,
    'position_offset': 0,
    'use_bias': True,
    'qkv_bias': True,
    'qk_norm': False,
    'gated_mlp': False,
    'sliding_window': 0,
    'scale_attention': True,
    'scale_embeddings': False,
    'scale_logits': False,
    'token_types': 0,
    'head': 'linear',
    'output_bias': False,
    'pooler': False,
    'num_classes': 0,
    'span_head': False,
}
GPT2_TRAITS = COMMON_TRAITS | {'position': 'learned'}
LLAMA_TRAITS = COMMON_TRAITS | {
    'norm': 'rmsnorm',
    'position': 'rotary',
    'gated_mlp': True,
    'use_bias': False,
}
BERT_TRAITS = COMMON_TRAITS | {
    'structure': 'encoder',
    'norm_order': 'post',
    'embedding_norm': True,
    'position': 'learned',
    'tie_embeddings': True,
}
T5_TRAITS = COMMON_TRAITS | {
    'structure': 'encoder_decoder',
    'norm': 'rmsnorm',
    'position': 'relative',
    'use_bias': False,
    'qkv_bias': False,
    'scale_attention': False,
}
MARIAN_TRAITS = COMMON_TRAITS | {
    'structure': 'encoder_decoder',
    'norm_order': 'post',
    'norm_epsilon': 1e-5,
    'position': 'sinusoidal',
}


def _has(config: ModelConfig, traits: dict[str, Any], *free: str) -> bool:
    """Does the model have all traits but those that are `free`?"""
    return all(getattr(config, key) == value for key, value in traits.items() if key not in free)


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Returns the config.json of a model; UserError if no architecture of transformers computes it."""
    values = _architecture(config)
    if values is None:
        shown = ', '.join(f'{key}={getattr(config, key)}' for key in COMMON_TRAITS | {'position': ''})
        raise UserError(
            f'no architecture of transformers that Lathe writes ({", ".join(PARSERS)}) has model.{shown}.'
        )
    shared = {
        'vocab_size': config.vocab_size,
        'tie_word_embeddings': config.tie_embeddings,
        'dtype': 'float32',
    }
    return shared | values


def _architecture(config: ModelConfig) -> dict[str, Any] | None:
    """Returns what config.json says of one architecture alone, None if there is none like this."""
    if _has(config, LLAMA_TRAITS, 'qkv_bias', 'qk_norm', 'sliding_window'):
        return _write_llama(config)
    whole_heads = config.head_dim * config.num_heads == config.embed_dim
    if config.num_kv_heads != config.num_heads:
        return None
    if _has(config, T5_TRAITS, 'gated_mlp', 'scale_logits'):
        return _write_t5(config)
    if not whole_heads:
        return None
    if _has(config, GPT2_TRAITS):
        return _write_gpt2(config)
    heads = ('head', 'output_bias', 'pooler', 'num_classes', 'span_head')
    if _has(config, BERT_TRAITS, 'position_offset', 'token_types', *heads):
        return _write_bert(config)
    if _has(config, MARIAN_TRAITS, 'scale_embeddings', 'output_bias'):
        return _write_marian(config)
    return None


THEIR_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        'model_type': 'gpt2',
        'architectures': ['GPT2LMHeadModel'],
        'n_layer': config.num_layers,
        'n_embd': config.embed_dim,
        'n_head': config.num_heads,
        'n_inner': config.mlp_dim,
        'n_positions': config.max_length,
        'layer_norm_epsilon': config.norm_epsilon,
        'activation_function': THEIR_ACTIVATIONS[config.activation],
    }


def _write_llama(config: ModelConfig) -> dict[str, Any] | None:
    kinds = {
        (False, False, False): ('llama', 'LlamaForCausalLM'),
        (False, False, True): ('mistral', 'MistralForCausalLM'),
        (True, False, False): ('qwen2', 'Qwen2ForCausalLM'),
        (False, True, False): ('qwen3', 'Qwen3ForCausalLM'),
    }
    kind = kinds.get((config.qkv_bias, config.qk_norm, config.sliding_window > 0))
    if kind is None:
        return None
    rotary: dict[str, Any] = {'rope_type': 'default', 'rope_theta': config.rope_theta}
    if config.rope_scaling != 'none':
        rotary |= {'rope_type': config.rope_scaling, 'factor': config.rope_factor}
    if config.rope_scaling == 'llama3':
        rotary |= {
            'low_freq_factor': config.rope_low_factor,
            'high_freq_factor': config.rope_high_factor,
            'original_max_position_embeddings': config.rope_original_length,
        }
    return {
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
        'hidden_act': THEIR_ACTIVATIONS[config.activation],
        'rope_parameters': rotary,
        'rope_theta': config.rope_theta,  # and rope_scaling, for readers older than transformers 5
        'rope_scaling': None if config.rope_scaling == 'none' else rotary,
        **({'sliding_window': config.sliding_window} if config.sliding_window else {}),
    }


def _write_bert(config: ModelConfig) -> dict[str, Any] | None:
    """BERT for masked words, with or without a judgement of the sentence pair; classes; spans; or bare."""
    kinds = {  # head, pooler, classes, spans
        ('transform', False, False, False): 'ForMaskedLM',
        ('transform', True, True, False): 'ForPreTraining',
        ('none', True, True, False): 'ForSequenceClassification',
        ('none', False, False, True): 'ForQuestionAnswering',
        ('none', True, False, False): 'Model',
        ('none', False, False, False): 'Model',
    }
    kind = kinds.get((config.head, config.pooler, config.num_classes > 0, config.span_head))
    roberta = config.position_offset > 0
    unknown = kind is None or config.output_bias != (config.head == 'transform')
    if unknown or (kind == 'ForPreTraining' and (roberta or config.num_classes != 2)):
        return None
    labels = range(config.num_classes) if kind == 'ForSequenceClassification' else ()
    return {
        'model_type': 'roberta' if roberta else 'bert',
        'architectures': [('Roberta' if roberta else 'Bert') + str(kind)],
        'num_hidden_layers': config.num_layers,
        'hidden_size': config.embed_dim,
        'num_attention_heads': config.num_heads,
        'intermediate_size': config.mlp_dim,
        'max_position_embeddings': config.max_length + config.position_offset,
        'type_vocab_size': config.token_types,
        'layer_norm_eps': config.norm_epsilon,
        'hidden_act': THEIR_ACTIVATIONS[config.activation],
        **({'pad_token_id': config.position_offset - 1} if roberta else {}),
        **({'id2label': {str(label): f'LABEL_{label}' for label in labels}} if labels else {}),
        **({'label2id': {f'LABEL_{label}': label for label in labels}} if labels else {}),
    }


def _write_t5(config: ModelConfig) -> dict[str, Any] | None:
    activation = THEIR_ACTIVATIONS[config.activation]
    if config.gated_mlp:
        if config.activation == 'gelu':
            return None  # what transformers calls 'gated-gelu' is the tanh approximation
        activation = 'gated-gelu' if config.activation == 'gelu_tanh' else f'gated-{activation}'
    return {
        'model_type': 't5',
        'architectures': ['T5ForConditionalGeneration'],
        'is_encoder_decoder': True,
        'num_layers': config.encoder_layers,
        'num_decoder_layers': config.num_layers,
        'd_model': config.embed_dim,
        'num_heads': config.num_heads,
        'd_kv': config.head_dim,
        'd_ff': config.mlp_dim,
        'n_positions': config.max_length,
        'layer_norm_epsilon': config.norm_epsilon,
        'relative_attention_num_buckets': config.relative_buckets,
        'relative_attention_max_distance': config.relative_distance,
        'feed_forward_proj': activation,
        'scale_decoder_outputs': config.scale_logits,
    }


def _write_marian(config: ModelConfig) -> dict[str, Any]:
    return {
        'model_type': 'marian',
        'architectures': ['MarianMTModel'],
        'is_encoder_decoder': True,
        'encoder_layers': config.encoder_layers,
        'decoder_layers': config.num_layers,
        'd_model': config.embed_dim,
        'encoder_attention_heads': config.num_heads,
        'decoder_attention_heads': config.num_heads,
        'encoder_ffn_dim': config.mlp_dim,
        'decoder_ffn_dim': config.mlp_dim,
        'max_position_embeddings': config.max_length,
        'activation_function': THEIR_ACTIVATIONS[config.activation],
        'scale_embedding': config.scale_embeddings,
        'forced_eos_token_id': None,
    }
