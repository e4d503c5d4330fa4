import math

import jax
import numpy as np
import pytest

from configs import base
from training.optimizer import decay_mask, layer_scales, make_optimizer, make_schedule


def experiment(**options):
    config = base.get_config()
    config.num_steps = 100
    config.optimizer.update(learning_rate=2.0, warmup_steps=10, final_learning_rate=0.1, decay_fraction=0.2)
    config.optimizer.update(options)
    return config


def after_warmup(schedule: str, step: int) -> float:
    """The schedules as their papers write them, peak 2, 10 of 100 steps of warm-up, a tenth left."""
    done = (step - 10) / 90
    return {
        'cosine': 0.2 + (2.0 - 0.2) * 0.5 * (1 + math.cos(math.pi * done)),
        'linear': 2.0 + (0.2 - 2.0) * done,
        'inverse_sqrt': 2.0 * math.sqrt(10 / step),
        'wsd': 2.0 if step <= 80 else 2.0 + (0.2 - 2.0) * (step - 80) / 20,
        'constant': 2.0,
    }[schedule]


@pytest.mark.parametrize('name', ['cosine', 'linear', 'inverse_sqrt', 'wsd', 'constant'])
def test_schedules_are_their_formulas(name):
    schedule = make_schedule(experiment(schedule=name))
    for step in range(10):
        assert float(schedule(step)) == pytest.approx(2.0 * step / 10, rel=1e-6)
    for step in range(10, 101):
        assert float(schedule(step)) == pytest.approx(after_warmup(name, step), rel=1e-5), step


def test_no_warmup_begins_at_the_peak():
    assert float(make_schedule(experiment(warmup_steps=0))(0)) == pytest.approx(2.0)


def test_decay_leaves_out_names_that_match():
    params = {'block': {'kernel': 1, 'bias': 1}, 'norm': {'scale': 1}, 'token_embedding': {'embedding': 1}}
    mask = decay_mask(params, base.get_config().optimizer.weight_decay_exclude)
    assert mask == {
        'block': {'kernel': True, 'bias': False},
        'norm': {'scale': False},
        'token_embedding': {'embedding': False},
    }


def test_adamw_is_the_papers_algorithm():
    config = experiment(schedule='constant', warmup_steps=0, learning_rate=0.01, weight_decay=0.1)
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(3, 4))
    params = {'kernel': np.asarray(theta, np.float32)}
    state = optimizer.init(params)
    m = v = np.zeros_like(theta)
    for t in range(1, 6):
        g = rng.normal(size=(3, 4))
        updates, state = optimizer.update({'kernel': np.asarray(g, np.float32)}, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        theta = theta - 0.01 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.1 * theta)
    # float32 against float64 over five updates
    np.testing.assert_allclose(params['kernel'], theta, rtol=1e-5, atol=1e-6)


def test_rates_fall_from_layer_to_layer():
    stacks = {'encoder_blocks': {'kernel': np.ones((3, 2, 2))}, 'blocks': {'bias': np.ones((2, 4))}}
    others = ('token_embedding', 'relative_bias', 'encoder_norm', 'final_norm', 'unembed', 'classifier')
    params = stacks | dict.fromkeys(others, np.ones(4))
    scales = layer_scales(params, 0.5, num_layers=2, encoder_layers=3)
    assert scales['encoder_blocks']['kernel'].ravel().tolist() == [0.5**5, 0.5**4, 0.5**3]
    assert scales['blocks']['bias'].ravel().tolist() == [0.5**2, 0.5**1]
    assert [float(scales[name]) for name in others] == [0.5**6, 0.5**6, 0.5**2, 1, 1, 1]


def test_layer_decay_scales_what_adamw_would_do():
    params = {'blocks': {'kernel': np.ones((2, 3), np.float32)}, 'pooler': {'kernel': np.ones(3, np.float32)}}
    config = experiment(schedule='constant', warmup_steps=0)
    config.model.num_layers = 2
    whole = make_optimizer(config)
    config.optimizer.layer_decay = 0.5
    decayed = make_optimizer(config)
    expected, _ = whole.update(params, whole.init(params), params)
    found, _ = decayed.update(params, decayed.init(params), params)
    np.testing.assert_allclose(
        found['blocks']['kernel'], expected['blocks']['kernel'] * np.array([[0.25], [0.5]])
    )
    np.testing.assert_array_equal(found['pooler']['kernel'], expected['pooler']['kernel'])
