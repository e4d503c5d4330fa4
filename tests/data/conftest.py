"""A small corpus and a config for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base

WORDS = [
    'the',
    'a',
    'tensor',
    'axis',
    'rows',
    'and',
    'shard',
    'returns',
    'zéro',
    '数据',
    '🙂',
    'loss',
    'step',
    'gradient',
]


def write_corpus(path: Path, documents: int, seed: int = 0) -> list[str]:
    """Writes paragraphs of random words, and returns them."""
    rng = random.Random(seed)
    texts = [f'{n} ' + ' '.join(rng.choices(WORDS, k=rng.randint(1, 80))) for n in range(documents)]
    path.write_text('\n\n'.join(texts) + '\n', encoding='utf-8')
    return texts


@pytest.fixture
def config(tmp_path: Path) -> ConfigDict:
    """Returns a config that prepares tmp_path/corpus.txt, 400 paragraphs, in this process."""
    write_corpus(tmp_path / 'corpus.txt', 400)
    config = base.get_config()
    config.sequence_length = 32
    config.batch_size = 8
    config.eval_batches = 3
    config.data.source = str(tmp_path / 'corpus.txt')
    config.data.path = str(tmp_path / 'prepared')
    config.data.eval_fraction = 0.1
    config.data.shard_tokens = 4000
    config.data.shuffle_bytes = 2000
    config.data.num_workers = 1
    config.tokenizer.vocab_size = 360
    config.tokenizer.sample_bytes = 50_000
    return config
