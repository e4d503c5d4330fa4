"""Tiny models of transformers: every architecture, seeded random weights, awkward shapes."""

from __future__ import annotations

import torch
import transformers

NARROW = {
    'num_hidden_layers': 2,
    'hidden_size': 18,
    'num_attention_heads': 9,
    'num_key_value_heads': 3,
    'intermediate_size': 25,
    'vocab_size': 61,
    'max_position_embeddings': 48,
    'bos_token_id': 1,
    'eos_token_id': 2,
}
LLAMA3 = {
    'rope_type': 'llama3',
    'rope_theta': 10000.0,
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 16,
}
IDS = {'bos_token_id': 0, 'eos_token_id': 0}
BERT = {
    'num_hidden_layers': 2,
    'hidden_size': 21,
    'num_attention_heads': 3,
    'intermediate_size': 25,
    'vocab_size': 61,
    'max_position_embeddings': 50,
    'layer_norm_eps': 1e-5,
}
T5 = {
    'num_layers': 2,
    'num_decoder_layers': 1,
    'd_model': 20,
    'd_kv': 7,
    'num_heads': 3,
    'd_ff': 25,
    'vocab_size': 61,
    'relative_attention_num_buckets': 10,
    'relative_attention_max_distance': 24,
}
MARIAN = {
    'encoder_layers': 2,
    'decoder_layers': 1,
    'd_model': 18,
    'encoder_attention_heads': 3,
    'decoder_attention_heads': 3,
    'encoder_ffn_dim': 25,
    'decoder_ffn_dim': 25,
    'vocab_size': 61,
    'max_position_embeddings': 48,
    'activation_function': 'relu',
    'scale_embedding': True,
    'pad_token_id': 0,
    'eos_token_id': 2,
    'decoder_start_token_id': 0,
    'forced_eos_token_id': None,
}

CONFIGS = {
    'gpt2': lambda: transformers.GPT2Config(
        n_layer=1, n_embd=21, n_head=3, n_positions=48, vocab_size=61, n_inner=30, **IDS
    ),
    'gpt2-untied': lambda: transformers.GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        n_positions=48,
        vocab_size=61,
        activation_function='gelu',
        tie_word_embeddings=False,
        **IDS,
    ),
    'llama': lambda: transformers.LlamaConfig(**NARROW),
    'llama3-tied': lambda: transformers.LlamaConfig(
        **NARROW, tie_word_embeddings=True, rope_parameters=LLAMA3
    ),
    'mistral': lambda: transformers.MistralConfig(**NARROW, sliding_window=5),
    'qwen2': lambda: transformers.Qwen2Config(**NARROW),
    'qwen3': lambda: transformers.Qwen3Config(**NARROW, head_dim=6),
    'bert': lambda: transformers.BertConfig(**BERT),
    'roberta': lambda: transformers.RobertaConfig(**BERT, type_vocab_size=1),
    't5': lambda: transformers.T5Config(**T5, decoder_start_token_id=0),
    't5-gated': lambda: transformers.T5Config(
        **T5, decoder_start_token_id=0, feed_forward_proj='gated-gelu', tie_word_embeddings=False
    ),
    'marian': lambda: transformers.MarianConfig(**MARIAN),
}
CLASSES = {
    'bert': transformers.BertForPreTraining,
    'roberta': transformers.RobertaForMaskedLM,
    't5': transformers.T5ForConditionalGeneration,
    't5-gated': transformers.T5ForConditionalGeneration,
    'marian': transformers.MarianMTModel,
}


def make(name: str) -> transformers.PreTrainedModel:
    """Returns the model, float32, with weights large enough that no two logits are close."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    if name in CLASSES:
        model = CLASSES[name](config).eval()
    else:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
            spread = torch.randn_like(parameter) * 0.3
            parameter.copy_(spread if parameter.ndim > 1 else spread + parameter.mean())
    return model


def inputs(model: transformers.PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> dict:
    """Returns the arguments of a forward pass; an encoder-decoder reads the tokens and is to repeat them."""
    kinds = {'labels': tokens, 'input_ids': tokens, 'attention_mask': mask}
    if not model.config.is_encoder_decoder:
        kinds['labels'] = torch.where(mask > 0, tokens, -100)
    if isinstance(model, transformers.BertForPreTraining):
        kinds['next_sentence_label'] = torch.zeros(len(tokens), dtype=torch.long)
    return kinds


def logits(output) -> torch.Tensor:
    """Returns the logits of the vocabulary, whatever they are called."""
    return output.logits if hasattr(output, 'logits') else output.prediction_logits
