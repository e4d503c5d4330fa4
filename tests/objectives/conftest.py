"""A tokenizer reduced to what objectives read, and rows of packed documents."""

from __future__ import annotations

import types

import numpy as np
import pytest

from configs import base

FIRST, VOCAB = 20, 120  # ids of text; below: special symbols and sentinels


@pytest.fixture
def tokenizer():
    """Begin 1, end 2, pad 0, mask 3, sentinels 4 to 18; words begin at multiples of 4."""
    return types.SimpleNamespace(
        bos_id=1,
        eos_id=2,
        pad_id=0,
        mask_id=3,
        sentinel_ids=np.arange(4, 19, dtype=np.int32),
        vocab_size=VOCAB,
        word_starts=lambda: np.arange(VOCAB) % 4 == 0,
    )


@pytest.fixture
def config():
    config = base.get_config()
    config.sequence_length = 96
    return config


@pytest.fixture
def pack(config):
    """Returns a function that makes rows of documents with random lengths, begin and end symbols included."""

    def pack(count: int, shortest: int = 5, longest: int = 60, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        total = count * config.sequence_length + 1
        stream: list[int] = []
        while len(stream) < total:
            body = rng.integers(FIRST, VOCAB, rng.integers(shortest, longest)).tolist()
            stream += [1, *body, 2]
        starts = np.arange(count)[:, None] * config.sequence_length
        return np.array(stream, np.int32)[starts + np.arange(config.sequence_length + 1)]

    return pack


@pytest.fixture
def seeds():
    return lambda count: np.random.default_rng(9).integers(0, 2**63, count).astype(np.uint64)
