"""Spans that are cut out of documents, and put back."""

from __future__ import annotations

import types

import numpy as np
import pytest

from configs.errors import UserError
from objectives import span_corruption
from tests.objectives.conftest import FIRST, VOCAB


def restore(inputs: np.ndarray, targets: np.ndarray, sentinels: np.ndarray) -> list[int]:
    """Puts each span in the place of its sentinel; both sides end with 2."""
    assert inputs[-1] == targets[-1] == 2
    spans: dict[int, list[int]] = {}
    for token in targets[:-1].tolist():
        if token in sentinels:
            current = spans[token] = []
        else:
            current.append(token)
    assert list(spans) == sentinels[: len(spans)].tolist()
    assert [token for token in inputs.tolist() if token in sentinels] == list(spans)
    return [t for token in inputs[:-1].tolist() for t in spans.get(token, [token])]


@pytest.mark.parametrize('length', [4, 5, 9, 40, 90])
def test_spans_put_back_give_the_document(tokenizer, config, length):
    rng = np.random.default_rng(length)
    for _ in range(50):
        document = rng.integers(FIRST, VOCAB, length).astype(np.int32)
        inputs, targets = span_corruption.corrupt(document, tokenizer, config, rng)
        assert restore(inputs, targets, tokenizer.sentinel_ids) == document.tolist()
        hidden = len(targets) - 1 - np.isin(targets, tokenizer.sentinel_ids).sum()
        assert hidden == max(1, round(0.15 * length))
        spans = np.isin(inputs, tokenizer.sentinel_ids).sum()
        assert spans == max(1, round(hidden / 3))
        assert not (np.diff(np.flatnonzero(np.isin(inputs, tokenizer.sentinel_ids))) == 1).any()


def test_every_token_is_cut_out_about_equally_often(tokenizer, config):
    rng = np.random.default_rng(0)
    document = np.arange(FIRST, FIRST + 80, dtype=np.int32)
    counts = np.zeros(80)
    for _ in range(3000):
        _, targets = span_corruption.corrupt(document, tokenizer, config, rng)
        counts[targets[targets >= FIRST] - FIRST] += 1
    # Four standard deviations of a binomial share, and what is left of an edge: spans of 3 in 80 tokens.
    assert counts.sum() == 3000 * 12
    assert abs(counts[4:-4] / 3000 - 0.15).max() < 4 * np.sqrt(0.15 * 0.85 / 3000) + 0.01
    assert counts.min() / 3000 > 0.05
    assert counts.max() / 3000 < 0.25


def test_rows_hold_their_documents(tokenizer, config, pack, seeds):
    rows = pack(100)
    batch = span_corruption.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=seeds(100))
    lengths = span_corruption.lengths(config)
    assert batch['tokens_BL'].shape == (100, lengths.tokens)
    assert batch['encoder_tokens_BS'].shape == (100, lengths.encoder_tokens)
    kept = 0
    for r, row in enumerate(rows[:, :-1]):
        text = ' '.join(map(str, row.tolist()))
        for segment in range(1, batch['segments_BL'][r].max() + 1):
            inputs = batch['encoder_tokens_BS'][r][batch['encoder_segments_BS'][r] == segment]
            targets = batch['targets_BL'][r][batch['segments_BL'][r] == segment]
            document = restore(inputs, targets, tokenizer.sentinel_ids)
            assert ' '.join(map(str, document)) in text
            kept += len(document)
    assert kept / (rows[:, :-1] >= FIRST).sum() > 0.95
    np.testing.assert_array_equal(batch['weights_BL'], batch['segments_BL'] > 0)


def test_a_row_depends_on_its_own_seed_alone(tokenizer, config, pack, seeds):
    rows, row_seeds = pack(10), seeds(10)
    whole = span_corruption.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=row_seeds)
    part = span_corruption.make_batch(rows[6:7], tokenizer=tokenizer, config=config, seeds_R=row_seeds[6:7])
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][6:7])


def test_too_few_sentinels_are_refused(tokenizer, config):
    model = types.SimpleNamespace(structure='encoder_decoder', family='t5')
    span_corruption.check(config, model, tokenizer)
    tokenizer.sentinel_ids = tokenizer.sentinel_ids[:2]
    with pytest.raises(UserError, match=r'cuts 5 spans out of a row of 96 tokens, and the tokenizer has 2'):
        span_corruption.check(config, model, tokenizer)
