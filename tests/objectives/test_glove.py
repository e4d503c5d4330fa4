"""GloVe's loss and counts against the paper, written out."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import glove
from configs.errors import UserError
from data.cooccurrences import DTYPE
from model.word_embeddings import WordEmbeddings, resolve
from objectives import glove as objective


@pytest.fixture
def config():
    config = glove.get_config('smoke')
    config.model.embed_dim = 8
    return config


def test_loss_is_equation_8(config):
    rng = np.random.default_rng(0)
    records = 40
    i, j = rng.integers(3, 20, (2, records))
    x = rng.choice([0.5, 1.0, 3.7, 99.0, 100.0, 500.0], records).astype(np.float32)
    row = np.concatenate([i, j, x.view(DTYPE), [7]]).astype(np.int32)[None]
    model = WordEmbeddings(resolve(config, vocab_size=20))
    params = {
        'center_embedding': rng.normal(size=(128, 8)).astype(np.float32),
        'context_embedding': rng.normal(size=(128, 8)).astype(np.float32),
        'center_bias': rng.normal(size=128).astype(np.float32),
        'context_bias': rng.normal(size=128).astype(np.float32),
    }
    batch = objective.make_batch(row)
    total, weight, _ = objective.loss(model, params, batch, config=config)

    expected = 0.0
    for place in range(records):
        w, w_, b, b_ = (
            params[name][index].astype(np.float64)
            for name, index in zip(
                ('center_embedding', 'context_embedding', 'center_bias', 'context_bias'),
                (i[place], j[place]) * 2,
                strict=True,
            )
        )
        f = (x[place] / 100) ** 0.75 if x[place] < 100 else 1.0
        expected += f * (w @ w_ + b + b_ - np.log(x[place])) ** 2
    # Sums of 40 float32 terms of up to a hundred: rounding of 6e-8 each.
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weight == records


def test_what_fills_up_a_row_is_not_learnt(config):
    model = WordEmbeddings(resolve(config, vocab_size=20))
    params = jax.tree.map(
        lambda leaf: leaf.value,
        model.init(jax.random.key(0), np.zeros((1, 1), np.int32)),
        is_leaf=lambda leaf: hasattr(leaf, 'value'),
    )['params']
    row = np.concatenate([[3, 0], [4, 0], np.array([2.0, 0.0], np.float32).view(DTYPE), [0]])[None].astype(
        np.int32
    )
    batch = objective.make_batch(row)
    (total, weight), gradient = jax.value_and_grad(
        lambda params: objective.loss(model, params, batch, config=config)[:2], has_aux=True
    )(params)
    assert weight == 1
    assert np.isfinite(total)
    assert not np.asarray(gradient['center_embedding'][0]).any()
    assert np.asarray(gradient['center_embedding'][3]).any()


def test_it_asks_for_biases_and_records(config):
    model = resolve(config, vocab_size=20)
    with pytest.raises(UserError, match='needs the counts of words'):
        objective.check(config, model, object())
