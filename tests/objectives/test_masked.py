"""What is hidden of a row, how it is replaced, and the loss of guessing it."""

from __future__ import annotations

import types

import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import UserError
from model.unembedding import Unembedding
from objectives import masked
from tests.objectives.conftest import FIRST, VOCAB


@pytest.fixture
def make(tokenizer, config):
    return lambda rows, seeds: masked.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=seeds)


def test_so_many_tokens_are_hidden_and_none_else_change(make, pack, seeds):
    rows = pack(300)
    batch = make(rows, seeds(300))
    text_BL = rows[:, :-1] >= FIRST
    hidden_BL = batch['weights_BL'] > 0
    np.testing.assert_array_equal(hidden_BL.sum(axis=1), np.round(0.15 * text_BL.sum(axis=1)))
    assert not (hidden_BL & ~text_BL).any()
    np.testing.assert_array_equal(batch['targets_BL'], rows[:, :-1])
    np.testing.assert_array_equal(batch['tokens_BL'][~hidden_BL], rows[:, :-1][~hidden_BL])
    for row, positions_M in zip(hidden_BL, batch['hidden_BM'], strict=True):
        np.testing.assert_array_equal(positions_M[: row.sum()], np.flatnonzero(row))


def test_of_ten_hidden_tokens_eight_are_masks_one_is_random_and_one_stays(make, pack, seeds):
    rows = pack(2000)
    batch = make(rows, seeds(2000))
    hidden = batch['weights_BL'] > 0
    shown, meant = batch['tokens_BL'][hidden], batch['targets_BL'][hidden]
    number = hidden.sum()
    # Within four standard deviations of a binomial share; a random token is the right one 1 time in VOCAB.
    for found, share in (((shown == 3), 0.8), ((shown == meant), 0.1 + 0.1 / VOCAB)):
        assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / number) + 1 / VOCAB / 10
    random = shown[(shown != 3) & (shown != meant)]
    assert len(np.unique(random)) > VOCAB * 0.95


def test_words_are_hidden_whole(make, config, pack, seeds, tokenizer):
    config.masking.whole_words = True
    rows = pack(200)
    hidden_BL = make(rows, seeds(200))['weights_BL'] > 0
    for row, hidden in zip(rows[:, :-1], hidden_BL, strict=True):
        # A word begins at ids that are multiples of 4, and behind a special symbol.
        words = np.cumsum((row % 4 == 0) | (np.roll(row, 1) < FIRST))
        for word in np.unique(words[row >= FIRST]):
            of_word = hidden[(words == word) & (row >= FIRST)]
            assert of_word.all() or not of_word.any()
    found, wanted = hidden_BL.sum(axis=1), np.round(0.15 * (rows[:, :-1] >= FIRST).sum(axis=1))
    assert (found <= wanted).all()
    assert found.sum() > 0.9 * wanted.sum()


def test_a_row_depends_on_its_own_seed_alone(make, pack, seeds):
    rows, row_seeds = pack(20), seeds(20)
    whole = make(rows, row_seeds)
    part = make(rows[[13, 4]], row_seeds[[13, 4]])
    for name, value in part.items():
        np.testing.assert_array_equal(value, whole[name][[13, 4]])


def test_sentence_pairs_follow_each_other_or_do_not_as_labelled(make, config, pack, seeds):
    config.masking.next_sentence = True
    rows = pack(400, shortest=20, longest=60)
    batch = make(rows, seeds(400))
    assert abs(batch['labels_B'].mean() - 0.5) < 4 * 0.5 / 20
    for row, ids, types_L, label in zip(
        rows, batch['targets_BL'], batch['types_BL'], batch['labels_B'], strict=True
    ):
        first, second = np.flatnonzero(ids == 2)
        assert ids[0] == 1
        assert (ids[second + 1 :] == 0).all()
        np.testing.assert_array_equal(np.flatnonzero(types_L), np.arange(first + 1, second + 1))
        a, b = ids[1:first].tolist(), ids[first + 1 : second].tolist()
        text = ' '.join(map(str, row[:-1].tolist()))
        together = ' '.join(map(str, a + b)) in text
        assert ' '.join(map(str, a)) in text
        assert ' '.join(map(str, b)) in text
        assert together == (label == 0)


def test_the_loss_is_that_of_the_hidden_tokens(make, config, pack, seeds):
    batch = make(pack(3), seeds(3))
    logits_BLV = np.random.default_rng(1).normal(size=(3, 96, VOCAB)).astype(np.float32)

    def apply(variables, *, tokens_BL, segments_BL, positions_BL, logits_at_BM, output, **_):
        assert output == 'unembedding'
        wanted_BMV = jnp.take_along_axis(logits_BLV, logits_at_BM[..., None], axis=1)
        return Unembedding(wanted_BMV, None, jnp.eye(VOCAB), None)

    total, weight, sums = masked.loss(types.SimpleNamespace(apply=apply), {}, batch, config=config)
    log_p = logits_BLV - np.log(np.exp(logits_BLV).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p, batch['targets_BL'][..., None], axis=-1)[..., 0]
    assert float(weight) == batch['weights_BL'].sum()
    # float32 sums of some forty terms of order 5
    assert float(total) == pytest.approx((expected * batch['weights_BL']).sum(), rel=1e-5)
    assert float(sums['nll']) == pytest.approx(float(total), rel=1e-6)


def test_what_cannot_be_learnt_is_refused(tokenizer, config):
    encoder = types.SimpleNamespace(
        structure='encoder', head='transform', num_classes=0, token_types=2, family='bert'
    )
    masked.check(config, encoder, tokenizer)
    config.masking.next_sentence = True
    with pytest.raises(UserError, match=r'needs model.num_classes=2 and model.token_types=2; they are 0'):
        masked.check(config, encoder, tokenizer)
    tokenizer.mask_id = None
    with pytest.raises(UserError, match=r"tokenizer.control_symbols=\('<mask>',\)"):
        masked.check(config, encoder, tokenizer)
    encoder.structure = 'decoder'
    with pytest.raises(UserError, match=r"trains a model of structure 'encoder'"):
        masked.check(config, encoder, tokenizer)
