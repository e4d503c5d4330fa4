"""From one sequence to another with teacher forcing: translation, summarization and their like.

R rows · B batch · L length of targets · S length of inputs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from configs.errors import UserError
from objectives import cross_entropy
from objectives.segments import restart
from objectives.task_rows import Example, Row


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if the model is no encoder-decoder, or the data are no pairs."""
    cross_entropy.require('seq2seq', model_config, 'encoder_decoder')
    if not config.data.target_field:
        raise UserError(
            "objective='seq2seq' learns pairs; set data.text_field and data.target_field to the fields of "
            'inputs and targets, and prepare the data with them.'
        )


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the decoder and the encoder read."""
    return cross_entropy.Lengths(config.target_length or config.sequence_length, config.sequence_length)


def row(config: Any) -> Row:
    """Returns what a row of labelled examples has room for."""
    inputs, targets = config.sequence_length, config.target_length or config.sequence_length
    return Row(inputs, answers=targets, examples=inputs)


def lay_out(examples: Sequence[Example], config: Any) -> np.ndarray:
    """Returns examples side by side as a row of prepared pairs, int32 [S + L + 1]; the rest is 0."""
    room = row(config)
    laid_out = np.zeros(room.tokens + room.answers + 1, np.int32)
    for start, texts in ((0, [e.tokens_T for e in examples]), (room.tokens, [e.answer for e in examples])):
        joined = np.concatenate(texts)
        laid_out[start : start + len(joined)] = joined
    return laid_out


def make_batch(rows_RT: np.ndarray, *, tokenizer: Any, config: Any, **_: Any) -> dict[str, np.ndarray]:
    """Splits rows of prepared pairs (data/manifest.py) into the batch of an encoder-decoder.

    Args:
      rows_RT: int32 ids [B, S + L + 1]; the last column belongs to the next row.
      tokenizer: its `eos_id` and `pad_id` are read.
      config: `sequence_length` is read.

    Returns:
      encoder_tokens_BS, encoder_segments_BS, encoder_positions_BS, tokens_BL, targets_BL, segments_BL,
      positions_BL (int32), weights_BL (float32).
    """
    return split(rows_RT[:, :-1], config.sequence_length, tokenizer)


def split(rows_RT: np.ndarray, input_length: int, tokenizer: Any) -> dict[str, np.ndarray]:
    """Returns the batch of rows [B, S + L]; the decoder reads its targets one later, after a pad."""
    inputs_BS, targets_BL = rows_RT[:, :input_length], rows_RT[:, input_length:]
    encoder_segments_BS, encoder_positions_BS = _segments(inputs_BS, tokenizer.eos_id)
    segments_BL, positions_BL = _segments(targets_BL, tokenizer.eos_id)
    shifted_BL = np.pad(targets_BL[:, :-1], ((0, 0), (1, 0)), constant_values=tokenizer.pad_id)
    return {
        'encoder_tokens_BS': inputs_BS,
        'encoder_segments_BS': encoder_segments_BS,
        'encoder_positions_BS': encoder_positions_BS,
        'tokens_BL': np.where(positions_BL == 0, tokenizer.pad_id, shifted_BL).astype(np.int32),
        'targets_BL': targets_BL,
        'segments_BL': segments_BL,
        'positions_BL': positions_BL,
        'weights_BL': (segments_BL > 0).astype(np.float32),
    }


def _segments(tokens_RT: np.ndarray, eos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns int32 [R, T] segments, each up to its eos, and positions; what follows the last is padding, 0.

    No segment is empty, so that eos right after eos is padding too.
    """
    ends = tokens_RT == eos_id
    after_end = np.pad(ends, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    empty = np.logical_or.accumulate(ends & after_end, axis=1)
    before_an_end = np.logical_or.accumulate((ends & ~empty)[:, ::-1], axis=1)[:, ::-1]
    segments_RT = np.cumsum(after_end, axis=1, dtype=np.int32) * (before_an_end & ~empty)
    return segments_RT, restart(after_end)


def loss(
    model: Any, params: Any, batch: dict[str, jax.Array], *, config: Any, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns float32 sums over the batch: of loss, weights and metrics, as causal.loss does."""
    names = ('tokens_BL', 'segments_BL', 'positions_BL')
    names += ('encoder_tokens_BS', 'encoder_segments_BS', 'encoder_positions_BS')
    unembedding = cross_entropy.apply(model, params, batch, names, dropout_key)
    return cross_entropy.sums(unembedding, batch['targets_BL'], batch['weights_BL'], config)
