"""Batches worked out by hand, and sums of losses."""

from __future__ import annotations

import types

import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from configs.errors import UserError
from model.unembedding import Unembedding
from objectives import causal, get

TOKENIZER = types.SimpleNamespace(bos_id=1, eos_id=2, pad_id=0)


def test_a_packed_row_is_split_into_its_documents():
    # The end of one document, a whole one, padding.
    row = np.array([[7, 8, 2, 1, 9, 2, 0, 0, 0]], np.int32)
    batch = causal.make_batch(row, tokenizer=TOKENIZER)
    expected = {
        'tokens_BL': [[7, 8, 2, 1, 9, 2, 0, 0]],
        'targets_BL': [[8, 2, 1, 9, 2, 0, 0, 0]],
        'weights_BL': [[1, 1, 0, 1, 1, 0, 0, 0]],
        'segments_BL': [[1, 1, 1, 2, 2, 2, 0, 0]],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(batch[name], value)
    np.testing.assert_array_equal(batch['positions_BL'][0, :6], [0, 1, 2, 0, 1, 2])
    assert {name: array.dtype for name, array in batch.items()} == {
        'tokens_BL': np.int32,
        'targets_BL': np.int32,
        'weights_BL': np.float32,
        'segments_BL': np.int32,
        'positions_BL': np.int32,
    }


def test_random_rows_equal_a_walk_along_them():
    rows = np.random.default_rng(0).integers(0, 6, (20, 33)).astype(np.int32)
    batch = causal.make_batch(rows, tokenizer=TOKENIZER)
    for r, row in enumerate(rows):
        segment, position = 0, 0
        for i, token in enumerate(row[:-1]):
            if i == 0 or token == 1:
                segment, position = segment + 1, 0
            assert batch['segments_BL'][r, i] == (segment if token != 0 else 0)
            assert batch['positions_BL'][r, i] == position
            assert batch['weights_BL'][r, i] == (token != 0 and row[i + 1] not in (0, 1))
            position += 1


def test_one_token_may_begin_end_and_pad():
    # GPT-2: a document's last tokens, two whole documents, padding.
    tokenizer = types.SimpleNamespace(bos_id=5, eos_id=5, pad_id=5)
    row = np.array([[7, 8, 5, 5, 9, 5, 5, 6, 7, 5, 5, 5]], np.int32)
    batch = causal.make_batch(row, tokenizer=tokenizer)
    expected = {
        'weights_BL': [[1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0]],
        'segments_BL': [[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 0]],
        'positions_BL': [[0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 0]],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(batch[name][:, :10], np.array(value)[:, :10])
        if name != 'positions_BL':
            np.testing.assert_array_equal(batch[name], value)


def test_the_end_is_learnt_where_it_pads_too():
    # LLaMA's tokenizer, which has no padding: begin 1, end and pad 2.
    tokenizer = types.SimpleNamespace(bos_id=1, eos_id=2, pad_id=2)
    row = np.array([[1, 8, 2, 1, 9, 2, 2, 2]], np.int32)
    batch = causal.make_batch(row, tokenizer=tokenizer)
    np.testing.assert_array_equal(batch['weights_BL'], [[1, 1, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(batch['segments_BL'], [[1, 1, 1, 2, 2, 2, 0]])


def test_every_token_after_a_bos_is_learnt_once():
    rows = np.random.default_rng(0).integers(3, 9, (4, 33)).astype(np.int32)
    rows[:, [0, 10, 20]] = 1
    assert causal.make_batch(rows, tokenizer=TOKENIZER)['weights_BL'].sum() == 4 * (33 - 3)


class Uniform:
    """A model to which all 10 tokens are equally likely."""

    def apply(self, variables, tokens_BL, segments_BL, positions_BL, *, deterministic, rngs, output):
        assert deterministic == (rngs is None)
        assert output == 'unembedding'
        x_BL1 = np.zeros((*tokens_BL.shape, 1), np.float32)
        return Unembedding(jnp.asarray(x_BL1), None, jnp.zeros((1, 10)), None)


def test_losses_are_sums_over_weighted_tokens():
    rows = np.array([[1, 3, 4, 2, 0], [5, 6, 1, 7, 8]], np.int32)
    batch = causal.make_batch(rows, tokenizer=TOKENIZER)
    config = base.get_config()
    config.z_loss = 0.01
    total, weight, metrics = causal.loss(Uniform(), {}, batch, config=config)
    z_loss = 0.01 * np.log(10) ** 2
    assert float(weight) == 6
    assert float(metrics['nll']) == pytest.approx(6 * np.log(10), rel=1e-6)
    assert float(metrics['z_loss']) == pytest.approx(6 * z_loss, rel=1e-6)
    assert float(total) == pytest.approx(6 * (np.log(10) + z_loss), rel=1e-6)


def test_objectives_are_found_by_name():
    assert get('causal') is causal
    with pytest.raises(UserError, match=r"objective='casual' is not known. Did you mean 'causal'"):
        get('casual')
    with pytest.raises(UserError, match=r"objective='cross_entropy' is not known"):
        get('cross_entropy')
