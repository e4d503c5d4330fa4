"""Optimizer state in host memory: the same updates, and checkpoints that runs with and without it share."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from tests.training.test_step import Training, rows
from training import offloading
from training.checkpoint import Checkpoints


def kinds(tree) -> set[str]:
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree) if leaf.ndim}


@pytest.mark.parametrize('changes', [{}, {'optimizer.name': 'adagrad'}])
def test_updates_are_those_without(changes):
    here, there = Training(**changes), Training(**changes, **{'optimizer.offload': True})
    assert (kinds(here.state.opt_state), kinds(there.state.opt_state)) == ({'device'}, {'pinned_host'})
    for seed in range(3):
        one, two = here.run(rows(seed=seed)), there.run(rows(seed=seed))
        assert two.keys() == one.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5), name
    assert kinds(there.state.opt_state) == {'pinned_host'}
    for a, b in zip(jax.tree.leaves(here.state), jax.tree.leaves(there.state), strict=True):
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-5, atol=1e-7)


def test_all_that_is_learnt_may_lie_in_blocks():
    # As with adapters, and where embeddings are frozen.
    optimizer = optax.adamw(0.1)
    params = {'blocks': {'kernel': np.arange(6, dtype=np.float32).reshape(3, 2)}}
    grads, state = jax.tree.map(np.cos, params), optimizer.init(params)

    def update(grads, state, params, make):
        return optimizer.update(grads, state, params)

    whole = jax.jit(update)(grads, state, params, True)
    on_host = jax.tree.map(
        lambda leaf: jax.device_put(leaf, offloading.on_host(leaf.sharding)) if leaf.ndim else leaf, state
    )
    by_layers = jax.jit(offloading.by_layers(update))(grads, on_host, params, True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(b), a, rtol=1e-6), whole, by_layers)


def test_a_step_that_is_not_finite_leaves_moments_as_they_were():
    training = Training(**{'optimizer.offload': True})
    training.run(rows())
    before = jax.device_get(training.state.opt_state)
    scale = training.state.params['final_norm']['scale']
    training.state.params['final_norm']['scale'] = scale * np.nan
    assert training.run(rows())['skipped_steps'] == 1
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(training.state.opt_state), strict=True):
        np.testing.assert_array_equal(np.asarray(b), a)


def test_checkpoints_are_shared_by_runs_with_and_without(tmp_path):
    saved = Training(**{'optimizer.offload': True})
    saved.run(rows())
    position = jax.numpy.zeros((8, 1), jax.numpy.int32)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, saved.state, position, {})
    checkpoints.wait()
    for training, kind in ((saved, 'pinned_host'), (Training(), 'device')):
        restored, _ = checkpoints.restore(1, training.abstract)
        assert kinds(restored.opt_state) == {kind}
        for a, b in zip(jax.tree.leaves(saved.state), jax.tree.leaves(restored), strict=True):
            np.testing.assert_array_equal(np.asarray(b), np.asarray(a))
    checkpoints.close()
