"""Every objective on rows of whole documents, with separate and with shared begin, end and pad symbols."""

from __future__ import annotations

import types
from itertools import pairwise

import numpy as np
import pytest

from configs import base
from data import best_fit
from objectives import causal, masked, prefix_lm, segments, span_corruption

WIDTH = 33
SEEDS = np.arange(100, 200, dtype=np.uint64)
TOKENIZERS = {
    'llama': types.SimpleNamespace(bos_id=1, eos_id=2, pad_id=0),
    'gpt2': types.SimpleNamespace(bos_id=0, eos_id=0, pad_id=0),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> types.SimpleNamespace:
    tokenizer = TOKENIZERS[request.param]
    tokenizer.mask_id, tokenizer.vocab_size = 3, 2000
    tokenizer.sentinel_ids = np.arange(10, 40, dtype=np.int32)
    return tokenizer


@pytest.fixture
def pieces(tokenizer: types.SimpleNamespace) -> list[np.ndarray]:
    """Documents of different tokens: short ones, one of a whole row, and one cut into three pieces."""
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(3, 30, 40).tolist(), WIDTH - 2, 2 * WIDTH + 9]
    documents, at = [], 100
    for length in lengths:
        ids = np.arange(at, at + length, dtype=np.int32)
        documents.append(np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], np.int32))
        at += length
    return [piece for ids in documents for piece in best_fit.chunks(ids, WIDTH, tokenizer.bos_id)]


@pytest.fixture
def rows(pieces: list[np.ndarray], tokenizer: types.SimpleNamespace) -> np.ndarray:
    return best_fit.pack(pieces, WIDTH, tokenizer.pad_id)


@pytest.fixture
def config():
    config = base.get_config()
    config.sequence_length = WIDTH - 1
    return config


def test_causal_learns_every_token_of_every_document_once(rows, pieces, tokenizer):
    batch = causal.make_batch(rows, tokenizer=tokenizer)
    expected = [
        (int(token), int(target), position)
        for piece in pieces
        for position, (token, target) in enumerate(pairwise(piece))
    ]
    learnt = batch['weights_BL'] > 0
    names = ('tokens_BL', 'targets_BL', 'positions_BL')
    assert sorted(zip(*(batch[name][learnt].tolist() for name in names), strict=True)) == sorted(expected)
    for tokens_L, segments_L in zip(batch['tokens_BL'], batch['segments_BL'], strict=True):
        for segment in range(1, segments_L.max() + 1):
            text = tokens_L[(segments_L == segment) & (tokens_L > 99)]
            assert (np.diff(text) == 1).all()  # of one document, without a gap


def test_prefixes_are_beginnings_of_documents(rows, tokenizer):
    whole = causal.make_batch(rows, tokenizer=tokenizer)
    batch = prefix_lm.make_batch(rows, tokenizer=tokenizer, seeds_R=SEEDS[: len(rows)])
    prefix, positions = batch['prefix_BL'], batch['positions_BL']
    assert (batch['weights_BL'] <= whole['weights_BL']).all()
    assert not prefix[batch['segments_BL'] == 0].any()
    assert prefix[(positions == 0) & (batch['segments_BL'] > 0)].all()
    inner = positions[:, 1:] > 0
    assert (prefix[:, :-1] >= prefix[:, 1:])[inner].all()


def test_masks_hide_text_alone(rows, tokenizer, config):
    batch = masked.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS[: len(rows)])
    chosen = batch['weights_BL'] > 0
    assert (batch['targets_BL'][chosen] > 99).all()
    text = (batch['targets_BL'] > 99).sum(axis=1)
    assert np.array_equal(chosen.sum(axis=1), np.maximum(1, np.round(0.15 * text)))
    kept = (batch['tokens_BL'] == batch['targets_BL']) | chosen
    assert kept.all()


def test_spans_are_cut_out_of_whole_documents_and_fit_together_again(rows, tokenizer, config):
    batch = span_corruption.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS[: len(rows)])
    for row in range(len(rows)):
        found = []
        for segment in range(1, batch['segments_BL'][row].max() + 1):
            inputs = batch['encoder_tokens_BS'][row][batch['encoder_segments_BS'][row] == segment]
            targets = batch['targets_BL'][row][batch['segments_BL'][row] == segment]
            found.append(sorted(token for token in [*inputs.tolist(), *targets.tolist()] if token > 99))
        documents = [d.tolist() for d in segments.documents(rows[row, :-1], tokenizer) if len(d) >= 4]
        assert found == documents[: len(found)]
        assert found
