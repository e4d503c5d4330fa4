"""Span corruption: spans are cut out of a text, and the decoder writes them down (Raffel et al. 2020, 3.1.4).

"Thank you for inviting me to your party" becomes "Thank you <0> me to your party", and its target
"<0> for inviting" with the end symbol, where <0> is a sentinel of the tokenizer.

R rows · T tokens in a row · B batch · L length of targets · S length of inputs
"""

from __future__ import annotations

from typing import Any

import numpy as np

from configs.errors import UserError
from objectives import cross_entropy, seq2seq
from objectives.segments import documents

LENGTH_MULTIPLE = 8
SHORTEST_DOCUMENT = 4  # tokens; of less nothing can be cut out that the rest would tell


def check(config: Any, model_config: Any, tokenizer: Any) -> None:
    """Raises UserError if model or tokenizer cannot do it."""
    cross_entropy.require('span_corruption', model_config, 'encoder_decoder')
    wanted = _counts(config.sequence_length, config)[1]
    if len(tokenizer.sentinel_ids) < wanted:
        raise UserError(
            f"objective='span_corruption' cuts {wanted} spans out of a row of {config.sequence_length} "
            f'tokens, and the tokenizer has {len(tokenizer.sentinel_ids)} sentinels; prepare the text with '
            "tokenizer.control_symbols=('<extra_id_0>', '<extra_id_1>', …), or change masking.rate, "
            'masking.span_length or sequence_length.'
        )


def lengths(config: Any) -> cross_entropy.Lengths:
    """Returns how many tokens of a row the decoder and the encoder read.

    The decoder's are those that one document of a whole row needs, and a quarter more for the ends of
    several, rounded up to LENGTH_MULTIPLE.
    """
    length = config.target_length
    if not length:
        hidden, spans = _counts(config.sequence_length, config)
        length = -(-(hidden + spans + 1) * 5 // 4 // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    return cross_entropy.Lengths(length, config.sequence_length)


def _counts(length: int, config: Any) -> tuple[int, int]:
    """Returns how many tokens, in how many spans, are cut out of a document; some always stay."""
    hidden = min(max(round(length * config.masking.rate), 1), length - 1)
    spans = min(max(round(hidden / config.masking.span_length), 1), length - hidden)
    return hidden, spans


def make_batch(
    rows_RT: np.ndarray, *, tokenizer: Any, config: Any, seeds_R: np.ndarray
) -> dict[str, np.ndarray]:
    """Cuts spans out of every document of packed rows; a row's cuts depend on its seed alone.

    Documents whose spans exceed the target's length, the last of rows of many, are left out.

    Args:
      rows_RT: int32 ids [B, S + 1]; the last column is for what predicts the next token.
      tokenizer: special ids and `sentinel_ids` are read.
      config: `masking`, `sequence_length` and `target_length` are read.
      seeds_R: uint64.

    Returns:
      What seq2seq.make_batch returns.
    """
    target_length, input_length, _ = lengths(config)
    made = np.full((len(rows_RT), input_length + target_length), tokenizer.pad_id, np.int32)
    for row, seed in enumerate(seeds_R):
        rng = np.random.default_rng(seed)
        ends = [0, input_length]
        for document in documents(rows_RT[row, :-1], tokenizer):
            if len(document) < SHORTEST_DOCUMENT:
                continue
            pair = corrupt(document, tokenizer, config, rng)
            if ends[0] + len(pair[0]) > input_length or ends[1] + len(pair[1]) > made.shape[1]:
                break
            for side, ids in enumerate(pair):
                made[row, ends[side] : ends[side] + len(ids)] = ids
                ends[side] += len(ids)
    return seq2seq.split(made, input_length, tokenizer)


def corrupt(
    document: np.ndarray, tokenizer: Any, config: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids that the encoder reads and those that the decoder writes, each with eos.

    What stays and what is cut out take turns in parts of random lengths. Either may come first or last:
    where all begin with what stays, as in T5's own preparation, every document's last token is cut out.
    """
    hidden, spans = _counts(len(document), config)
    stays = _random_parts(len(document) - hidden + 2, spans + 1, rng)
    stays[[0, -1]] -= 1
    cuts = _random_parts(hidden, spans, rng)
    borders = np.cumsum(np.stack([stays[:-1], cuts], axis=1).reshape(-1))
    pieces = np.split(document, borders)
    sentinels = np.split(tokenizer.sentinel_ids[:spans], spans)
    eos = np.array([tokenizer.eos_id], np.int32)
    inputs = [part for pair in zip(pieces[:-1:2], sentinels, strict=True) for part in pair] + pieces[-1:]
    targets = [part for pair in zip(sentinels, pieces[1::2], strict=True) for part in pair]
    return np.concatenate([*inputs, eos]), np.concatenate([*targets, eos])


def _random_parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `count` numbers of at least 1 that sum to `total`, all such divisions equally likely."""
    borders = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(borders, prepend=0, append=total)


loss = seq2seq.loss
