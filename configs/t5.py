"""T5 1.1: an encoder-decoder that restores spans cut out of a text, pre-trained from nothing on yours.

  python prepare.py  --config=configs/t5.py:small --config.data.source='corpus/*.jsonl.zst'
  python train.py    --config=configs/t5.py:small --workdir=runs/t5
  python generate.py --checkpoint=runs/t5 --prompt="Thank you <extra_id_0> me to your party."

Shapes: the published configs of T5 1.1 (Raffel et al. 2020; Shazeer 2020). Batch of 2¹⁶ tokens, span
corruption and the inverse square root schedule: Raffel et al. 2020, section 3.1; they used AdaFactor, this
is Adam at a lower peak. For the first T5: --config.model.gated_mlp=False --config.model.activation=relu
--config.model.tie_embeddings=True --config.model.scale_logits=True.

`:mini` learns from the embedded corpus on a laptop's CPU. `:smoke` is it shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose

# size: layers of each stack, width, heads, hidden units, peak learning rate
SIZES = {
    'mini': (3, 256, 4, 512, 2e-3),
    'small': (8, 512, 6, 1024, 1e-3),
    'base': (12, 768, 12, 2048, 1e-3),
    'large': (24, 1024, 16, 2816, 1e-3),
}


def get_config(size: str = 'small') -> ConfigDict:
    """Returns the experiment; `size` is a key of SIZES or 'smoke'."""
    choose('size', size, (*SIZES, 'smoke'))
    layers, width, heads, hidden, learning_rate = SIZES['mini' if size == 'smoke' else size]
    config = base.get_config()
    config.objective = 'span_corruption'
    config.model.family = 't5'
    config.model.num_layers = layers
    config.model.embed_dim = width
    config.model.num_heads = heads
    config.model.head_dim = 64
    config.model.mlp_dim = hidden
    config.sequence_length = 512
    config.batch_size = 128
    config.num_steps = 500_000
    config.z_loss = 1e-4
    config.tokenizer.kind = 'unigram'
    config.tokenizer.vocab_size = 32_128
    config.tokenizer.control_symbols = tuple(f'<extra_id_{number}>' for number in range(100))
    config.tokenizer.sample_bytes = 200_000_000
    config.data.path = 'prepared/t5'
    config.data.eval_fraction = 0.001
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = 'inverse_sqrt'
    config.optimizer.warmup_steps = 10_000
    config.optimizer.weight_decay = 0.0
    config.eval_every = 5000
    config.sample_every = 5000
    config.checkpoint_every = 5000
    config.sample_prompts = (
        'Returns the <extra_id_0> of the file.',
        'If <extra_id_0> None, the default is used.',
    )
    if size in ('mini', 'smoke'):
        base.for_laptop(config)
        config.optimizer.schedule = 'cosine'
        config.data.path = 'prepared/t5-mini'
    if size == 'smoke':
        base.shrink(config)
        config.model.head_dim = None
        config.data.path = 'prepared/t5-smoke'
    return config
