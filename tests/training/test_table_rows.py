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


def train(objective: str, **changes: Any):
    """Returns the state and the metrics after three steps of the shrunk experiment."""
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
    for _ in range(3):
        rows = rng.integers(3, 100, (4, 101)).astype(np.int32)  # most words do not occur
        seeds = rng.integers(0, 99, 4).astype(np.uint64)
        batch = module.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=seeds)
        state, found = step(state, batch)
        metrics.append(found)
    return jax.device_get((state, metrics))


@pytest.mark.parametrize('objective', ['skip_gram', 'cbow'])
@pytest.mark.parametrize('optimizer', ['sgd', 'adagrad'])
def test_rows_that_a_batch_looks_up_suffice(objective, optimizer, monkeypatch):
    changes: Any = {'optimizer.name': optimizer, 'optimizer.learning_rate': 0.5}
    by_rows, metrics = train(objective, **changes)
    monkeypatch.setattr(table_rows, 'suffice', lambda *_: False)
    whole, expected = train(objective, **changes)
    # The sums are those of the same terms, which the compiler may add in another order. AdaGrad divides by
    # gradients, and so magnifies the rounding of those that are nearly 0.
    atol = {'sgd': 1e-6, 'adagrad': 1e-4}[optimizer]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol), by_rows, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, expected)


@pytest.mark.parametrize('objective', ['skip_gram', 'cbow'])
def test_accumulation_gives_the_same_step(objective):
    whole, metrics = train(objective)
    parts, of_parts = train(objective, grad_accumulation=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, of_parts)
