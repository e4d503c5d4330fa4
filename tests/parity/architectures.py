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
}


def make(name: str) -> transformers.PreTrainedModel:
    """Returns the model, float32, with weights large enough that no two logits are close."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = torch.randn_like(parameter) * 0.3
            parameter.copy_(spread if parameter.ndim > 1 else spread + parameter.mean())
    return model
