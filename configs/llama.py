"""LLaMA shapes, from a laptop's to 70B, pre-trained from nothing on your text.

  python prepare.py --config=configs/llama.py:1b --config.data.source='corpus/*.jsonl.zst'
  python train.py   --config=configs/llama.py:1b --workdir=runs/llama-1b --config.mesh.fsdp=8

The 7b and 70b follow Touvron et al. 2023 (LLaMA 2): length 4096, 4M tokens a batch, cosine to a tenth. The
smaller ones keep their proportions, with grouped heads. Tokens: 20 a parameter (Hoffmann et al. 2022).

Hardware and time, estimated as 6 × parameters × tokens at 45 % MFU in bfloat16, not measured:
  60m    56M parameters     one H100: 15 minutes
  300m   302M               one H100: 7 hours     v5e-8: 4 hours
  1b     1.1B               8 H100: 12 hours      v5e-32: 15 hours
  7b     6.7B               64 H100: 53 hours     v5e-256: 66 hours
  70b    69B                512 v5p: 64 days
Loss: unknown until measured on your text.

`:smoke` is the 60m one shrunk to seconds, on the embedded corpus.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose

# size: layers, width, heads, key/value heads, hidden width, length, sequences a batch, in how many parts,
# steps, learning rate
SIZES = {
    '60m': (8, 512, 8, 4, 1408, 1024, 256, 4, 4_600, 1e-3),
    '300m': (20, 1024, 16, 8, 2816, 2048, 256, 16, 11_500, 6e-4),
    '1b': (22, 2048, 32, 8, 5632, 2048, 512, 8, 21_000, 4e-4),
    '7b': (32, 4096, 32, 32, 11_008, 4096, 1024, 4, 32_000, 3e-4),
    '70b': (80, 8192, 64, 8, 28_672, 4096, 1024, 2, 330_000, 1.5e-4),
}


def get_config(size: str = '300m') -> ConfigDict:
    """Returns the experiment; `size` is a key of SIZES or 'smoke'."""
    choose('size', size, (*SIZES, 'smoke'))
    shape = SIZES['60m' if size == 'smoke' else size]
    layers, width, heads, kv_heads, hidden, length, batch, parts, steps, rate = shape
    config = base.get_config()
    config.model.family = 'llama'
    config.model.num_layers = layers
    config.model.embed_dim = width
    config.model.num_heads = heads
    config.model.num_kv_heads = kv_heads
    config.model.mlp_dim = hidden
    config.model.remat = 'full' if size in ('7b', '70b') else 'dots'
    config.model.vocab_blocks = 5 if size in ('7b', '70b') else 1
    config.sequence_length = length
    config.batch_size = batch
    config.grad_accumulation = parts
    config.num_steps = steps
    config.z_loss = 1e-4
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.tokenizer.vocab_size = 32_000
    config.tokenizer.sample_bytes = 200_000_000
    config.data.path = f'prepared/llama-{length}'
    config.data.eval_fraction = 0.001
    config.optimizer.learning_rate = rate
    config.optimizer.warmup_steps = min(2_000, steps // 10)
    config.eval_every = 500
    config.eval_batches = 20
    config.sample_every = 1000
    config.checkpoint_every = 500
    if size == 'smoke':
        base.shrink(config)
        config.data.path = 'prepared/llama-smoke'
    return config
