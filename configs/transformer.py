"""The Transformer of 2017: an encoder-decoder with norms after the sums, for translation and other pairs.

  python prepare.py  --config=configs/transformer.py:base --config.data.source='wmt/*.jsonl.zst' \\
                     --config.data.text_field=en --config.data.target_field=de
  python train.py    --config=configs/transformer.py:base --workdir=runs/en-de (and the same flags)
  python generate.py --checkpoint=runs/en-de --prompt="How are you?" --num_beams=4 --length_penalty=0.6

Each line of the source has the two fields, as in {"en": "Good morning.", "de": "Guten Morgen."}.
Shapes, dropout, label smoothing, betas, schedule and 25,000 target tokens a batch: Vaswani et al. 2017,
sections 3 and 5, table 3; their peak learning rate is (width · warm-up steps)^−½.

`:mini` learns to shorten docstrings to their first lines, from the embedded corpus on a laptop's CPU.
`:smoke` is it shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose

# size: layers of each stack, width, heads, hidden units, dropout, steps
SIZES = {
    'mini': (2, 192, 3, 768, 0.1, 1000),
    'base': (6, 512, 8, 2048, 0.1, 100_000),
    'big': (6, 1024, 16, 4096, 0.3, 300_000),
}


def get_config(size: str = 'base') -> ConfigDict:
    """Returns the experiment; `size` is a key of SIZES or 'smoke'."""
    choose('size', size, (*SIZES, 'smoke'))
    layers, width, heads, hidden, dropout, steps = SIZES['mini' if size == 'smoke' else size]
    config = base.get_config()
    config.objective = 'seq2seq'
    config.model.family = 'transformer'
    config.model.num_layers = layers
    config.model.embed_dim = width
    config.model.num_heads = heads
    config.model.mlp_dim = hidden
    config.model.dropout_rate = dropout
    config.sequence_length = 256
    config.batch_size = 128
    config.num_steps = steps
    config.label_smoothing = 0.1
    config.tokenizer.vocab_size = 37_120
    config.tokenizer.sample_bytes = 200_000_000
    config.data.text_field = 'source'
    config.data.target_field = 'target'
    config.data.path = 'prepared/transformer'
    config.data.eval_fraction = 0.001
    config.optimizer.schedule = 'inverse_sqrt'
    config.optimizer.warmup_steps = 4000
    config.optimizer.learning_rate = (width * 4000) ** -0.5
    config.optimizer.b2 = 0.98
    config.optimizer.eps = 1e-9
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 0.0
    config.eval_every = 1000
    config.sample_every = 1000
    config.checkpoint_every = 1000
    config.sample_prompts = ('Good morning.',)
    if size in ('mini', 'smoke'):
        base.for_laptop(config)
        config.target_length = 64
        config.optimizer.learning_rate = 1e-3
        config.data.source = 'builtin:docstring-pairs'
        config.data.text_field = 'text'
        config.data.eval_fraction = 0.05
        config.data.path = 'prepared/transformer-mini'
        config.sample_prompts = (
            'The file is opened and read whole. A second argument names the encoding; the default is UTF-8.',
        )
    if size == 'smoke':
        base.shrink(config)
        config.sequence_length, config.target_length = 192, 32
        config.data.path = 'prepared/transformer-smoke'
    return config
