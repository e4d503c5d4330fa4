"""BERT: an encoder that guesses masked tokens, pre-trained from nothing on your text.

  python prepare.py  --config=configs/bert.py:base --config.data.source='corpus/*.jsonl.zst'
  python train.py    --config=configs/bert.py:base --workdir=runs/bert
  python generate.py --checkpoint=runs/bert --prompt="Paris is the [MASK] of France."

Shapes, dropout, learning rate and betas: Devlin et al. 2019, appendix A.2; mini: Turc et al. 2019. The text
is packed without sentence pairs, as Liu et al. 2019 (RoBERTa) found better; --config.masking.next_sentence,
with --config.model.num_classes=2, learns those too.

`:mini` learns from the embedded corpus on a laptop's CPU. `:smoke` is it shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose

# size: layers, width, heads, peak learning rate
SIZES = {
    'mini': (4, 256, 4, 1e-3),
    'base': (12, 768, 12, 1e-4),
    'large': (24, 1024, 16, 1e-4),
}


def get_config(size: str = 'base') -> ConfigDict:
    """Returns the experiment; `size` is a key of SIZES or 'smoke'."""
    choose('size', size, (*SIZES, 'smoke'))
    layers, width, heads, learning_rate = SIZES['mini' if size == 'smoke' else size]
    config = base.get_config()
    config.objective = 'masked'
    config.model.family = 'bert'
    config.model.num_layers = layers
    config.model.embed_dim = width
    config.model.num_heads = heads
    config.model.dropout_rate = 0.1
    config.sequence_length = 512
    config.batch_size = 256
    config.num_steps = 1_000_000
    config.tokenizer.vocab_size = 30_592
    config.tokenizer.control_symbols = ('<mask>',)
    config.tokenizer.sample_bytes = 200_000_000
    config.data.path = 'prepared/bert'
    config.data.eval_fraction = 0.001
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = 'linear'
    config.optimizer.final_learning_rate = 0.0
    config.optimizer.warmup_steps = 10_000
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-6
    config.optimizer.weight_decay = 0.01
    config.eval_every = 5000
    config.sample_every = 5000
    config.checkpoint_every = 5000
    config.sample_prompts = ('Returns the [MASK] of the file.', 'If [MASK] is None, the default is used.')
    if size in ('mini', 'smoke'):
        base.for_laptop(config)
        config.model.dropout_rate = 0.0
        config.data.path = 'prepared/bert-mini'
    if size == 'smoke':
        base.shrink(config)
        config.data.path = 'prepared/bert-smoke'
    return config
