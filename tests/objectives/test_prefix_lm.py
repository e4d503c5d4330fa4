"""Documents cut in two: the first part is seen whole, the second is learnt."""

from __future__ import annotations

import numpy as np

from objectives import causal, prefix_lm


def test_each_document_begins_with_a_prefix_of_which_nothing_is_learnt(tokenizer, pack, seeds):
    rows = pack(200)
    plain = causal.make_batch(rows, tokenizer=tokenizer)
    batch = prefix_lm.make_batch(rows, tokenizer=tokenizer, seeds_R=seeds(200))
    shares = []
    for r in range(200):
        for segment in range(1, plain['segments_BL'][r].max() + 1):
            columns = np.flatnonzero(plain['segments_BL'][r] == segment)
            prefix = batch['prefix_BL'][r][columns]
            size = prefix.sum()
            assert 1 <= size < max(2, len(columns))
            assert prefix[:size].all()  # it is the beginning
            # A position is learnt if its target, the next token, is not in the prefix.
            expected = plain['weights_BL'][r][columns] * (np.arange(len(columns)) >= size - 1)
            np.testing.assert_array_equal(batch['weights_BL'][r][columns], expected)
            if len(columns) > 20:
                shares.append(size / len(columns))
    assert abs(np.mean(shares) - 0.5) < 4 * 0.29 / np.sqrt(len(shares)) + 1 / 20  # anywhere


def test_a_row_depends_on_its_own_seed_alone(tokenizer, pack, seeds):
    rows, row_seeds = pack(8), seeds(8)
    whole = prefix_lm.make_batch(rows, tokenizer=tokenizer, seeds_R=row_seeds)
    part = prefix_lm.make_batch(rows[5:6], tokenizer=tokenizer, seeds_R=row_seeds[5:6])
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][5:6])
