"""GGUF files (llama.cpp) as if they were Hugging Face's: the same config keys, tensor names and layouts.

Quantized tensors are read as the float32 values they stand for. Source of names and layouts: the GGUF
specification in ggml's documentation, and the conversion script of llama.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from configs.errors import UserError

# GGUF's architecture: (model_type, are rows of query and key kernels interleaved?)
ARCHITECTURES = {'llama': ('llama', True), 'qwen2': ('qwen2', False), 'qwen3': ('qwen3', False)}
NAMES = {
    'token_embd': 'model.embed_tokens',
    'output_norm': 'model.norm',
    'output': 'lm_head',
}
LAYER_NAMES = {
    'attn_norm': 'input_layernorm',
    'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj',
    'attn_q_norm': 'self_attn.q_norm',
    'attn_k_norm': 'self_attn.k_norm',
    'attn_output': 'self_attn.o_proj',
    'ffn_norm': 'post_attention_layernorm',
    'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
}
SIZES = {  # GGUF's key, after the architecture: (config.json's, must it be there?)
    'block_count': ('num_hidden_layers', True),
    'context_length': ('max_position_embeddings', True),
    'embedding_length': ('hidden_size', True),
    'feed_forward_length': ('intermediate_size', True),
    'attention.head_count': ('num_attention_heads', True),
    'attention.head_count_kv': ('num_key_value_heads', False),
    'attention.key_length': ('head_dim', False),
    'attention.layer_norm_rms_epsilon': ('rms_norm_eps', True),
    'rope.freq_base': ('rope_theta', False),
}


class GGUFFiles:
    """A GGUF file in place of `tensor_files.TensorFiles`: names, shapes and tensors as Hugging Face has them.

    Raises UserError for an architecture that is not known.
    """

    def __init__(self, reader: gguf.GGUFReader, path: Path):
        self.directory = path
        self._reader = reader
        self._tensors = {self._name(tensor.name): tensor for tensor in reader.tensors}
        architecture = self._field('general.architecture', '')
        if architecture not in ARCHITECTURES:
            raise UserError(
                f'{path}: architecture {architecture!r} is not supported, only {", ".join(ARCHITECTURES)}.'
            )
        self.model_type, self._interleaved = ARCHITECTURES[architecture]
        self._prefix = architecture + '.'

    def config_json(self) -> dict[str, Any]:
        """Returns what config.json would say; UserError if a size is missing or a rope is scaled."""
        values: dict[str, Any] = {'model_type': self.model_type}
        for key, (name, needed) in SIZES.items():
            value = self._field(self._prefix + key, None)
            if value is not None:
                values[name] = value
            elif needed:
                raise UserError(f'{self.directory} has no {self._prefix}{key}; it must say the sizes.')
        scaling = self._field(self._prefix + 'rope.scaling.type', 'none')
        if scaling != 'none':
            raise UserError(
                f'{self.directory}: {self._prefix}rope.scaling.type={scaling!r} is not supported.'
            )
        values['vocab_size'] = self.shape('model.embed_tokens.weight')[0]
        values['tie_word_embeddings'] = 'lm_head.weight' not in self._tensors
        return values

    def names(self) -> set[str]:
        """Returns the names of all tensors; one that is not known keeps GGUF's."""
        return set(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading it."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, float32."""
        tensor = self._tensors[name]
        try:
            array = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(self.shape(name))
        except NotImplementedError as error:
            raise UserError(f'{self.directory}: {name} is {tensor.tensor_type.name}: {error}.') from error
        array = array.astype(np.float32, copy=False)
        if self._interleaved and name.endswith(('q_proj.weight', 'k_proj.weight')):
            heads = self._field(self._prefix + 'attention.head_count', None)
            if name.endswith('k_proj.weight'):
                heads = self._field(self._prefix + 'attention.head_count_kv', heads)
            array = _halves(array, heads)
        return array

    def _field(self, name: str, default: Any) -> Any:
        field = self._reader.fields.get(name)
        return default if field is None else field.contents()

    @staticmethod
    def _name(theirs: str) -> str:
        stem, _, kind = theirs.rpartition('.')
        if stem.startswith('blk.'):
            _, layer, part = stem.split('.', 2)
            return f'model.layers.{layer}.{LAYER_NAMES[part]}.{kind}' if part in LAYER_NAMES else theirs
        return f'{NAMES[stem]}.{kind}' if stem in NAMES else theirs


def _halves(array: np.ndarray, num_heads: int) -> np.ndarray:
    """Orders the rows of each head, of which neighbours are a rotary pair, as first and second halves."""
    rows, columns = array.shape
    pairs = array.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
