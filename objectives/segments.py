"""The documents of packed rows: where each begins, and what is padding.

R rows · T tokens in a row
"""

from __future__ import annotations

from typing import Any

import numpy as np


def find_segments(tokens_RT: np.ndarray, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns int32 [R, T] segments, counted from 1 with 0 for padding, and positions that restart with each.

    A segment begins at each bos and at the first column.

    Args:
      tokens_RT: int32 ids.
      tokenizer: its `bos_id`, `eos_id` and `pad_id` are read; they may be one and the same.
    """
    starts = begins_document(tokens_RT, tokenizer)
    starts[:, 0] = True
    segments_RT = np.cumsum(starts, axis=1, dtype=np.int32) * ~is_padding(tokens_RT, tokenizer)
    return segments_RT, restart(starts)


def restart(starts_RT: np.ndarray) -> np.ndarray:
    """Returns int32 [R, T]: 0, 1, 2, … anew from each start."""
    index = np.arange(starts_RT.shape[1], dtype=np.int32)
    return index - np.maximum.accumulate(np.where(starts_RT, index, 0), axis=1)


def is_padding(tokens_RT: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Returns booleans [R, T]: pad, or what follows the first of a row's last pads where pad is eos too."""
    pad = tokens_RT == tokenizer.pad_id
    if tokenizer.pad_id not in (tokenizer.bos_id, tokenizer.eos_id):
        return pad
    last = np.logical_and.accumulate(pad[:, ::-1], axis=1)[:, ::-1]
    last[:, 1:] &= last[:, :-1]
    last[:, 0] = False
    return last


def begins_document(tokens_RT: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Returns booleans [R, T]: bos, or the second of two where eos is the same token, as in GPT-2."""
    bos = tokens_RT == tokenizer.bos_id
    if tokenizer.bos_id == tokenizer.eos_id:
        bos[:, 1:] &= bos[:, :-1]
    return bos


def is_special(tokens_RT: np.ndarray, tokenizer: Any) -> np.ndarray:
    """Returns booleans [R, T]: begin, end or padding, which stand for no text."""
    return np.isin(tokens_RT, (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id))


def documents(row_T: np.ndarray, tokenizer: Any) -> list[np.ndarray]:
    """Returns the ids of each document in a row, or of its part there, without begin, end and padding."""
    segments_T = find_segments(row_T[None], tokenizer)[0][0]
    text = (segments_T > 0) & ~is_special(row_T, tokenizer)
    return [row_T[text & (segments_T == segment)] for segment in np.unique(segments_T[text])]
