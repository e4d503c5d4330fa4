"""A small language model on the embedded corpus: the whole road in a few minutes on a laptop's CPU.

  python prepare.py  --config=configs/quickstart.py
  python train.py    --config=configs/quickstart.py --workdir=runs/quickstart

A LLaMA shape of 3.3 million parameters, which at this size learns faster than GPT-2's.
Measured on two CPU cores: 4.0 minutes for all of `make demo`; loss 4.31 nats a token and
1.89 bits per byte on held-out text after 650 steps.

`:smoke` is the same experiment shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose


def get_config(size: str = '') -> ConfigDict:
    """Returns the experiment; `size` is '' or 'smoke'."""
    choose('size', size, ('', 'smoke'))
    config = base.get_config()
    config.model.family = 'llama'
    config.model.num_layers = 4
    config.model.embed_dim = 192
    config.model.num_heads = 3
    config.sequence_length = 256
    config.batch_size = 8
    config.num_steps = 650
    config.tokenizer.vocab_size = 4096
    config.tokenizer.sample_bytes = 4_000_000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 30
    config.eval_every = 100
    config.sample_every = 100
    config.checkpoint_every = 100
    config.data.path = 'prepared/quickstart'
    if size == 'smoke':
        base.shrink(config)
        config.data.path = 'prepared/quickstart-smoke'
    return config
