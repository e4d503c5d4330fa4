"""Where each of our arrays stands among the tensors of a published model; one map serves both directions.

Sources: the tensor names in the published weights of each architecture, and in what transformers writes.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np


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
    row: bool = False  # a vector that is theirs as [1, n]

    @property
    def stacked(self) -> bool:
        """Is it one of each layer, which ours stack on their first axis?"""
        return '{}' in self.name

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of their tensor for one of ours (of one layer)."""
        if self.row:
            return (1, *ours)
        if len(ours) == 1 or self.inputs == 0:
            return (math.prod(ours) * self.parts,)
        rows, columns = math.prod(ours[: self.inputs]), math.prod(ours[self.inputs :]) * self.parts
        return (columns, rows) if self.transposed else (rows, columns)

    def to_ours(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns our array of `shape` (of one layer), float32, out of their tensor."""
        array = theirs.T if self.transposed else theirs
        return np.split(array, self.parts, axis=-1)[self.part].reshape(shape).astype(np.float32, copy=False)

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


@dataclasses.dataclass(frozen=True)
class WeightMap:
    """The tensors of one architecture.

    tensors: by the path of our array. prefix: of the names, absent where only the base model was saved.
    copies: tensors that some files hold although they are the same as another.
    """

    tensors: dict[str, Tensor]
    prefix: str = ''
    copies: dict[str, str] = dataclasses.field(default_factory=dict)


# Constants that older versions of transformers saved among the weights, and a table that it never reads.
WITHOUT_USE = (
    r'.*(\.attn\.(masked_)?bias|rotary_emb\.inv_freq|embeddings\.position_ids|embed_positions\.weight|'
    r'block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight)'
)
OLD_ENDINGS = {'LayerNorm.gamma': 'LayerNorm.weight', 'LayerNorm.beta': 'LayerNorm.bias'}


def _attention(ours: str, theirs: str, names: str = 'q_proj k_proj v_proj o_proj') -> dict[str, Tensor]:
    """Returns query, key, value and output, by their names below `theirs`."""
    query, key, value, out = (f'{theirs}.{name}' for name in names.split())
    return {
        **_linear(f'{ours}/query', query),
        **_linear(f'{ours}/key', key),
        **_linear(f'{ours}/value', value),
        **_linear(f'{ours}/out', out, inputs=2),
    }


GPT2 = WeightMap(
    {
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
        **_linear('unembed', 'lm_head'),
    },
    prefix='transformer.',
    copies={'lm_head.weight': 'transformer.wte.weight'},
)

LLAMA = WeightMap(
    {
        'token_embedding/embedding': Tensor('model.embed_tokens.weight'),
        **_norm('blocks/attention_norm', 'model.layers.{}.input_layernorm'),
        **_attention('blocks/attention', 'model.layers.{}.self_attn'),
        **_norm('blocks/attention/query_norm', 'model.layers.{}.self_attn.q_norm'),
        **_norm('blocks/attention/key_norm', 'model.layers.{}.self_attn.k_norm'),
        **_norm('blocks/mlp_norm', 'model.layers.{}.post_attention_layernorm'),
        **_linear('blocks/mlp/gate', 'model.layers.{}.mlp.gate_proj'),
        **_linear('blocks/mlp/up', 'model.layers.{}.mlp.up_proj'),
        **_linear('blocks/mlp/down', 'model.layers.{}.mlp.down_proj'),
        **_norm('final_norm', 'model.norm'),
        **_linear('unembed', 'lm_head'),
    },
    prefix='model.',
    copies={'lm_head.weight': 'model.embed_tokens.weight'},
)


def _bert(
    base: str, head: dict[str, Tensor], classes: dict[str, Tensor], copies: dict[str, str]
) -> WeightMap:
    layer = f'{base}.encoder.layer.{{}}'
    tensors = {
        'token_embedding/embedding': Tensor(f'{base}.embeddings.word_embeddings.weight'),
        'position_embedding/embedding': Tensor(f'{base}.embeddings.position_embeddings.weight'),
        'type_embedding/embedding': Tensor(f'{base}.embeddings.token_type_embeddings.weight'),
        **_norm('embedding_norm', f'{base}.embeddings.LayerNorm'),
        **_attention('blocks/attention', f'{layer}.attention', 'self.query self.key self.value output.dense'),
        **_norm('blocks/attention_norm', f'{layer}.attention.output.LayerNorm'),
        **_linear('blocks/mlp/up', f'{layer}.intermediate.dense'),
        **_linear('blocks/mlp/down', f'{layer}.output.dense'),
        **_norm('blocks/mlp_norm', f'{layer}.output.LayerNorm'),
        **_linear('pooler', f'{base}.pooler.dense'),
        **_linear('span_head', 'qa_outputs'),
    }
    return WeightMap(tensors | head | classes, prefix=f'{base}.', copies=copies)


BERT_HEAD = {
    **_linear('head_dense', 'cls.predictions.transform.dense'),
    **_norm('head_norm', 'cls.predictions.transform.LayerNorm'),
    'output_bias': Tensor('cls.predictions.bias'),
}
BERT_COPIES = {
    'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
    'cls.predictions.decoder.bias': 'cls.predictions.bias',
}
BERT = _bert('bert', BERT_HEAD, _linear('classifier', 'cls.seq_relationship'), BERT_COPIES)
BERT_CLASSIFIER = _bert('bert', {}, _linear('classifier', 'classifier'), {})

ROBERTA_HEAD = {
    **_linear('head_dense', 'lm_head.dense'),
    **_norm('head_norm', 'lm_head.layer_norm'),
    'output_bias': Tensor('lm_head.bias'),
}
ROBERTA_COPIES = {
    'lm_head.decoder.weight': 'roberta.embeddings.word_embeddings.weight',
    'lm_head.decoder.bias': 'lm_head.bias',
}
ROBERTA = _bert('roberta', ROBERTA_HEAD, {}, ROBERTA_COPIES)
# The same mathematics under other names: what BERT calls its pooler belongs to RoBERTa's classifier.
ROBERTA_CLASSES = {**_linear('pooler', 'classifier.dense'), **_linear('classifier', 'classifier.out_proj')}
ROBERTA_CLASSIFIER = _bert('roberta', {}, ROBERTA_CLASSES, {})


def _t5(mlp: dict[str, str]) -> WeightMap:
    """Returns the map of a T5 whose MLP's kernels have these names."""

    def stack(ours: str, theirs: str, last: int) -> dict[str, Tensor]:
        layer = f'{theirs}.block.{{}}.layer'
        tensors = {
            **_norm(f'{ours}/attention_norm', f'{layer}.0.layer_norm'),
            **_attention(f'{ours}/attention', f'{layer}.0.SelfAttention', 'q k v o'),
            **_norm(f'{ours}/mlp_norm', f'{layer}.{last}.layer_norm'),
        }
        for name, kernel in mlp.items():
            tensors |= _linear(f'{ours}/mlp/{name}', f'{layer}.{last}.DenseReluDense.{kernel}')
        return tensors

    distances = 'block.0.layer.0.SelfAttention.relative_attention_bias.weight'
    tensors = {
        'token_embedding/embedding': Tensor('shared.weight'),
        'encoder_relative_bias': Tensor(f'encoder.{distances}'),
        **stack('encoder_blocks', 'encoder', 1),
        **_norm('encoder_norm', 'encoder.final_layer_norm'),
        'relative_bias': Tensor(f'decoder.{distances}'),
        **stack('blocks', 'decoder', 2),
        **_norm('blocks/cross_attention_norm', 'decoder.block.{}.layer.1.layer_norm'),
        **_attention('blocks/cross_attention', 'decoder.block.{}.layer.1.EncDecAttention', 'q k v o'),
        **_norm('final_norm', 'decoder.final_layer_norm'),
        **_linear('unembed', 'lm_head'),
    }
    tables = ('lm_head.weight', 'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
    return WeightMap(tensors, copies=dict.fromkeys(tables, 'shared.weight'))


T5 = _t5({'up': 'wi', 'down': 'wo'})
T5_GATED = _t5({'gate': 'wi_0', 'up': 'wi_1', 'down': 'wo'})


def _marian_stack(ours: str, theirs: str) -> dict[str, Tensor]:
    return {
        **_attention(f'{ours}/attention', f'{theirs}.self_attn', 'q_proj k_proj v_proj out_proj'),
        **_norm(f'{ours}/attention_norm', f'{theirs}.self_attn_layer_norm'),
        **_linear(f'{ours}/mlp/up', f'{theirs}.fc1'),
        **_linear(f'{ours}/mlp/down', f'{theirs}.fc2'),
        **_norm(f'{ours}/mlp_norm', f'{theirs}.final_layer_norm'),
    }


CROSS = 'model.decoder.layers.{}.encoder_attn'
MARIAN = WeightMap(
    {
        'token_embedding/embedding': Tensor('model.shared.weight'),
        **_marian_stack('encoder_blocks', 'model.encoder.layers.{}'),
        **_marian_stack('blocks', 'model.decoder.layers.{}'),
        **_attention('blocks/cross_attention', CROSS, 'q_proj k_proj v_proj out_proj'),
        **_norm('blocks/cross_attention_norm', f'{CROSS}_layer_norm'),
        **_linear('unembed', 'lm_head'),
        'output_bias': Tensor('final_logits_bias', row=True),
    },
    copies={
        'lm_head.weight': 'model.shared.weight',
        'model.encoder.embed_tokens.weight': 'model.shared.weight',
        'model.decoder.embed_tokens.weight': 'model.shared.weight',
    },
)
