"""Best-fit packing: whole documents side by side in rows, so that no border of a row cuts one.

Documents are placed by falling length, each in the row where it leaves the least room (best-fit-decreasing).
Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling", algorithm 1. Lengths are small
integers, so the rows with a given room are kept in one stack for each room, and the rooms that have rows
are the set bits of one integer: the tightest row is its lowest bit from the document's length on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

FULL = 15 / 16  # of a row; what has less is packed again with others


def chunks(document: np.ndarray, width: int, bos_id: int) -> list[np.ndarray]:
    """Returns a document of int32 ids, cut into pieces of at most `width` if it is longer than a row.

    Each piece begins with bos, the first with the document's own, so that every piece is told from the
    one before it in a row; every other token is in exactly one piece.
    """
    if len(document) <= width:
        return [document]
    inner = width - 1
    pieces = [document[1 + at : 1 + at + inner] for at in range(0, len(document) - 1, inner)]
    bos = np.array([bos_id], document.dtype)
    return [np.concatenate([bos, piece]) for piece in pieces]


def pack(pieces: Sequence[np.ndarray], width: int, pad_id: int) -> np.ndarray:
    """Returns int32 [rows, width]: every piece whole, one after another, and pad after the last of a row.

    pieces: int32 ids of at least one and at most `width` tokens. A row's pieces stand in the order in
    which they are given, and rows in the order of their first ones: documents stay near their neighbours,
    and the first rows are a fair sample of all.
    """
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    starts, rows = places(lengths, width)
    return lay(pieces, starts, rows, width, pad_id)


def places(lengths: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Returns int64 [n], where each piece begins in rows that are laid end to end, and the number of rows.

    lengths: int64 [n] of the pieces; they are packed as `pack` says.
    """
    row_of = best_fit_decreasing(lengths, width)
    # Rows in the order of their first pieces: the k-th row to be met gets number k.
    met, first, opened = np.unique(row_of, return_index=True, return_inverse=True)
    number = np.empty(len(met), np.int64)
    number[np.argsort(first)] = np.arange(len(met))
    row_of = number[opened]
    order = np.argsort(row_of, kind='stable')
    filled = np.bincount(row_of, lengths, len(met)).astype(np.int64)
    skipped = np.arange(len(met)) * width - (np.cumsum(filled) - filled)  # pads before each row
    starts = np.empty(len(lengths), np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order] + skipped[row_of[order]]
    return starts, len(met)


def lay(pieces: Sequence[np.ndarray], starts: np.ndarray, rows: int, width: int, pad_id: int) -> np.ndarray:
    """Returns int32 [rows, width]: each piece where it begins, and pad elsewhere."""
    laid = np.full((rows, width), pad_id, np.int32)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    ends = np.cumsum(lengths)
    at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    laid.reshape(-1)[at] = np.concatenate([np.zeros(0, np.int32), *pieces])
    return laid


def best_fit_decreasing(lengths: np.ndarray, width: int) -> np.ndarray:
    """Returns int64 [n]: the row of each of n pieces, rows numbered as they were begun.

    lengths: of the pieces, in 1 … width. Of equally long pieces the earlier is placed first; of equally
    full rows the one filled last is taken. So the result depends on the lengths alone.
    """
    rows_with: list[list[int]] = [[] for _ in range(width + 1)]  # rows by the room that they have
    rooms = 0  # bit r: some row has room r
    begun = 0
    row_of = np.empty(len(lengths), np.int64)
    for piece in np.argsort(-lengths, kind='stable').tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms ^= 1 << room
        else:
            room, row = width, begun
            begun += 1
        row_of[piece] = row
        room -= length
        if room:
            rows_with[room].append(row)
            rooms |= 1 << room
    return row_of


def repack(
    rows_of_parts: Iterable[np.ndarray], *, pad_id: int, eos_id: int, tokens_at_a_time: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the rows of all parts: full ones as they come, the others packed again, each as one piece.

    A part that ends leaves rows that wait for more; so do many small files, each a part of its own.

    Args:
      rows_of_parts: of each part int32 [rows, width], any integers.
      pad_id, eos_id: where they are the same, the first of the pads at a row's end is an eos.
      tokens_at_a_time: that may wait to be packed again.

    Yields:
      int32 [rows, width]; int64 [n], the numbers of the parts' rows that are in them; int64 [n], where each
      of these begins in all rows that were yielded, laid end to end.
    """
    waiting, numbers, held, width = [], [], 0, 1
    came = went = 0  # rows

    def pack_again() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts, count = places(np.array([len(piece) for piece in waiting], np.int64), width)
        rows = lay(waiting, starts, count, width, pad_id)
        return rows, np.array(numbers, np.int64), starts + went * width

    for rows in rows_of_parts:
        width = rows.shape[1]
        ends = width - np.argmax(rows[:, ::-1] != pad_id, axis=1) + (pad_id == eos_id)
        filled = np.minimum(ends, width)
        full = filled >= FULL * width
        yield rows[full], came + np.flatnonzero(full), (went + np.arange(full.sum())) * width
        went += int(full.sum())
        for row in np.flatnonzero(~full).tolist():
            waiting.append(rows[row, : filled[row]])
            numbers.append(came + row)
            held += int(filled[row])
            if held >= tokens_at_a_time:
                packed = pack_again()
                yield packed
                went += len(packed[0])
                waiting, numbers, held = [], [], 0
        came += len(rows)
    yield pack_again()
