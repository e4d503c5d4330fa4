"""GPT-2 in its four sizes, pre-trained from nothing on your text.

  python prepare.py --config=configs/gpt2.py:small --config.data.source='corpus/*.jsonl.zst'
  python train.py   --config=configs/gpt2.py:small --workdir=runs/gpt2-small

Shapes: Radford et al. 2019, table 2. Batch of half a million tokens, learning rates and betas:
Brown et al. 2020, table 2.1 (the nearest size). 20,000 steps are 10 billion tokens.

Hardware and time, estimated as 6 × parameters × tokens at 40 % MFU in bfloat16, not measured:
  small   124M parameters   one H100: 6 hours     v5e-8: 4 hours
  medium  355M              one H100: 16 hours    v5e-8: 10 hours
  large   774M              8 H100: 4 hours       v5e-32: 6 hours
  xl      1.6B              8 H100: 9 hours       v5e-32: 11 hours
Loss expected of small on web text: about 3.3 nats a token (Karpathy's llm.c reports 3.28 on FineWeb
after 10 billion tokens, with GPT-2's own vocabulary).

`:smoke` is the small one shrunk to seconds, on the embedded corpus.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose

# size: layers, width, heads, peak learning rate
SIZES = {
    'small': (12, 768, 12, 6e-4),
    'medium': (24, 1024, 16, 3e-4),
    'large': (36, 1280, 20, 2.5e-4),
    'xl': (48, 1600, 25, 2e-4),
}


def get_config(size: str = 'small') -> ConfigDict:
    """Returns the experiment; `size` is a key of SIZES or 'smoke'."""
    choose('size', size, (*SIZES, 'smoke'))
    layers, width, heads, learning_rate = SIZES['small' if size == 'smoke' else size]
    config = base.get_config()
    config.model.family = 'gpt2'
    config.model.num_layers = layers
    config.model.embed_dim = width
    config.model.num_heads = heads
    config.model.remat = 'dots'
    config.mesh.data, config.mesh.fsdp = (-1, 1) if layers < 36 else (1, -1)
    config.sequence_length = 1024
    config.batch_size = 512
    config.grad_accumulation = 8
    config.num_steps = 20_000
    config.tokenizer.vocab_size = 50_304
    config.tokenizer.sample_bytes = 200_000_000
    config.data.path = 'prepared/gpt2'
    config.data.eval_fraction = 0.001
    config.optimizer.learning_rate = learning_rate
    config.optimizer.warmup_steps = 700
    config.eval_every = 500
    config.eval_batches = 20
    config.sample_every = 1000
    config.checkpoint_every = 500
    if size == 'smoke':
        base.shrink(config)
        config.data.path = 'prepared/gpt2-smoke'
    return config
