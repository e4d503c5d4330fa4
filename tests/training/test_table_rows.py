"""Steps over the rows that a batch looks up, beside steps over whole tables."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import objectives
from configs import word2vec
from data.word_tokenizer import WordTokenizer, serialise
from model.word_embeddings import WordEmbeddings, resolve
from parallel.mesh import make_mesh
from training import table_rows
from training.optimizer import make_optimizer, make_schedule
from training.state import abstract_state, create
from training.step import make_train_step

COUNTS = [(f'w{number}', 400 // (number + 1)) for number in range(300)]


RATE: Any = {'optimizer.learning_rate': 0.5}


def train(objective: str, steps: int = 3, **changes: Any):
    """Returns the state and the metrics after some steps of the shrunk experiment."""
    config = word2vec.get_config('smoke')
    config.objective, config.sequence_length, config.batch_size = objective, 100, 4
    config.update_from_flattened_dict(changes)
    tokenizer = WordTokenizer(serialise(COUNTS, lowercase=True, phrases=[]))
    model = WordEmbeddings(resolve(config, vocab_size=tokenizer.vocab_size))
    optimizer = make_optimizer(config)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state = create(model, optimizer, abstract_state(model, optimizer, mesh, seed=0, ema=False), seed=0)
    module = objectives.get(objective)
    step = jax.jit(make_train_step(model, module, config, optimizer, make_schedule(config)))
    rng, metrics = np.random.default_rng(0), []
    for _ in range(steps):
        rows = rng.integers(3, 100, (4, 101)).astype(np.int32)  # most words do not occur
        seeds = rng.integers(0, 99, 4).astype(np.uint64)
        batch = module.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=seeds)
        state, found = step(state, batch)
        metrics.append(found)
    return jax.device_get((state, metrics))


@pytest.mark.parametrize('objective', ['skip_gram', 'cbow'])
def test_rows_that_a_batch_looks_up_suffice(objective, monkeypatch):
    by_rows, metrics = train(objective, **RATE)
    monkeypatch.setattr(table_rows, 'suffice', lambda *_: False)
    whole, expected = train(objective, **RATE)
    # The sums are those of the same terms, which are added in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), by_rows, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, expected)


def test_the_norm_is_known_in_steps_that_are_logged():
    _, logged = train('cbow', num_steps=3, **RATE)
    _, metrics = train('cbow', log_every=2, num_steps=3, **RATE)
    assert np.isnan(metrics[0]['grad_norm'])
    for step in (1, 2):  # the second, and the last
        assert metrics[step]['grad_norm'] == logged[step]['grad_norm']


def test_a_step_that_is_not_finite_leaves_tables_as_they_were():
    changes: Any = {'optimizer.learning_rate': 1e36}
    one, _ = train('cbow', steps=1, **changes)
    three, metrics = train('cbow', **changes)
    assert (one.skipped_steps, three.skipped_steps, metrics[-1]['skipped_in_a_row']) == (0, 2, 2)
    jax.tree.map(np.testing.assert_array_equal, three.params, one.params)


@pytest.mark.parametrize(
    'changes',
    [
        {'optimizer.name': 'adagrad'},
        {'optimizer.clip_norm': 1.0},
        {'optimizer.warmup_steps': 2},
        {'optimizer.schedule': 'cosine'},
        {'grad_accumulation': 2},
    ],
)
def test_what_takes_sums_goes_over_whole_tables(changes, monkeypatch):
    monkeypatch.setattr(table_rows, 'look_up', None)
    train('cbow', **changes)


@pytest.mark.parametrize('objective', ['skip_gram', 'cbow'])
def test_accumulation_gives_the_same_step(objective):
    whole, metrics = train(objective)
    parts, of_parts = train(objective, grad_accumulation=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, of_parts)
