"""Rows of pairs as an encoder-decoder reads them."""

from __future__ import annotations

import types

import numpy as np
import pytest

from configs.errors import UserError
from objectives import seq2seq


def test_a_row_is_split_into_its_pairs(tokenizer, config):
    config.sequence_length = 7
    row = np.array([[21, 22, 2, 23, 2, 0, 0, 31, 2, 32, 33, 2, 0, 99]], np.int32)
    batch = seq2seq.make_batch(row, tokenizer=tokenizer, config=config)
    expected = {
        'encoder_tokens_BS': [[21, 22, 2, 23, 2, 0, 0]],
        'encoder_segments_BS': [[1, 1, 1, 2, 2, 0, 0]],
        'tokens_BL': [[0, 31, 0, 32, 33, 0]],
        'targets_BL': [[31, 2, 32, 33, 2, 0]],
        'segments_BL': [[1, 1, 2, 2, 2, 0]],
        'weights_BL': [[1, 1, 1, 1, 1, 0]],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(batch[name], value, err_msg=name)
    np.testing.assert_array_equal(batch['encoder_positions_BS'][0, :5], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(batch['positions_BL'][0, :5], [0, 1, 0, 1, 2])


def test_an_end_that_pads_too_ends_each_text_but_once(tokenizer, config):
    tokenizer.pad_id = 2
    config.sequence_length = 5
    row = np.array([[21, 2, 22, 2, 2, 31, 2, 32, 2, 2, 2, 99]], np.int32)
    batch = seq2seq.make_batch(row, tokenizer=tokenizer, config=config)
    np.testing.assert_array_equal(batch['encoder_segments_BS'], [[1, 1, 2, 2, 0]])
    np.testing.assert_array_equal(batch['segments_BL'], [[1, 1, 2, 2, 0, 0]])
    np.testing.assert_array_equal(batch['weights_BL'], [[1, 1, 1, 1, 0, 0]])


def test_data_without_targets_are_refused(tokenizer, config):
    model = types.SimpleNamespace(structure='encoder_decoder', family='transformer')
    with pytest.raises(UserError, match=r"objective='seq2seq' learns pairs; set data.text_field"):
        seq2seq.check(config, model, tokenizer)
    config.data.target_field = 'answer'
    seq2seq.check(config, model, tokenizer)
