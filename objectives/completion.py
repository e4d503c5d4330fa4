"""Completion: a decoder learns the answers in what it reads, and none of the questions.

R rows · T tokens in a row · B batch · L length
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from objectives import causal
from objectives.segments import restart
from objectives.task_rows import Example, Row, codes, place

check = causal.check
lengths = causal.lengths
loss = causal.loss


def row(config: Any) -> Row:
    """Returns what a row has room for: tokens, one more than the model reads."""
    return Row(tokens=config.sequence_length + 1, answers=0, examples=config.sequence_length + 1)


def lay_out(examples: Sequence[Example], config: Any) -> np.ndarray:
    """Returns examples side by side as a row int32 [2 (L + 1)]: tokens, then 2 · segment + whether learnt."""
    return np.concatenate([place(examples, row(config).tokens), codes(examples, row(config).tokens)])


def make_batch(rows_RT: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
    """Splits rows from `lay_out` into inputs, targets, weights, segments and positions, as causal does."""
    tokens_RT, codes_RT = np.split(rows_RT, 2, axis=1)
    segments_RT, learnt_RT = codes_RT // 2, codes_RT % 2
    starts_RT = np.diff(segments_RT, axis=1, prepend=0) != 0
    follows_RL = segments_RT[:, 1:] == segments_RT[:, :-1]
    return {
        'tokens_BL': tokens_RT[:, :-1],
        'targets_BL': tokens_RT[:, 1:],
        'weights_BL': (learnt_RT[:, 1:] * follows_RL).astype(np.float32),
        'segments_BL': segments_RT[:, :-1],
        'positions_BL': restart(starts_RT)[:, :-1],
    }
