"""Parameters that stay as they are: no gradient, no moments, not a bit changed."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import objectives
from configs import quickstart
from configs.errors import UserError
from model import families
from model.transformer import Transformer
from parallel.mesh import make_mesh
from tests.training.test_step import TOKENIZER, rows
from training import freezing
from training.freezing import Learnt
from training.optimizer import make_optimizer, make_schedule
from training.state import abstract_state, create
from training.step import make_train_step

PARAMS = {'blocks': {'mlp': {'kernel': 1}, 'norm': {'scale': 2}}, 'table': 3}


def test_a_split_joins_to_the_whole():
    learnt, frozen = freezing.split(PARAMS, Learnt(('kernel$', '^table')))
    assert (learnt, frozen) == (
        {'blocks': {'norm': {'scale': 2}}},
        {'blocks': {'mlp': {'kernel': 1}}, 'table': 3},
    )
    assert freezing.join(learnt, frozen) == PARAMS
    assert freezing.split(PARAMS, Learnt()) == (PARAMS, None)
    assert freezing.join(PARAMS, None) == PARAMS


@pytest.mark.parametrize(
    ('patterns', 'message'), [(('kernels',), "'kernels' matches no parameter"), (('.',), 'nothing to learn')]
)
def test_patterns_that_freeze_nothing_or_all_are_refused(patterns, message):
    with pytest.raises(UserError, match=message):
        freezing.split(PARAMS, Learnt(patterns))


def training(frozen: tuple[str, ...], ema_decay: float = 0.0):
    """The first state of the shrunk quickstart and the function that trains it for some steps."""
    config = quickstart.get_config('smoke')
    config.sequence_length = 32
    config.optimizer.update(warmup_steps=0, clip_norm=0.0, frozen=frozen)
    config.ema_decay = ema_decay
    model = Transformer(families.resolve(config, vocab_size=512))
    optimizer = make_optimizer(config)
    options = {'seed': 0, 'learns': Learnt(frozen)}
    abstract = abstract_state(model, optimizer, make_mesh(config.mesh), ema=ema_decay > 0, **options)
    state = create(model, optimizer, abstract, **options)
    causal = objectives.get('causal')
    step = jax.jit(make_train_step(model, causal, config, optimizer, make_schedule(config)))

    def run(state, count):
        for seed in range(count):
            state, _ = step(state, causal.make_batch(rows(seed=seed), tokenizer=TOKENIZER))
        return jax.device_get(state)

    return jax.device_get(state), run


@pytest.fixture(scope='module')
def frozen():
    return training(('embedding', 'blocks/mlp/.*kernel$'), ema_decay=0.9)


def test_frozen_parameters_do_not_change_by_a_bit_and_the_others_do(frozen):
    first, run = frozen
    last = run(first, 3)
    jax.tree.map(np.testing.assert_array_equal, last.frozen, first.frozen)
    assert {'token_embedding/embedding', 'blocks/mlp/down/kernel'} < set(freezing.named(first.frozen))
    for name, array in freezing.named(first.params).items():
        assert not np.array_equal(freezing.named(last.params)[name], array), name
    whole = freezing.named(last.whole_params())
    assert set(whole) == set(freezing.named(first.params)) | set(freezing.named(first.frozen))
    average = freezing.named(last.ema_params)
    np.testing.assert_array_equal(whole['final_norm/scale'], average['final_norm/scale'])


def test_the_optimizer_holds_nothing_for_what_is_frozen(frozen):
    first, _ = frozen
    moments = first.opt_state[0]
    assert (
        set(freezing.named(moments.mu))
        == set(freezing.named(moments.nu))
        == set(freezing.named(first.params))
    )
    assert set(freezing.named(first.ema_params)) == set(freezing.named(first.params))


def test_what_is_learnt_has_the_gradient_that_it_has_when_all_is():
    (whole, run_whole), (part, run_part) = training(()), training(('embedding', 'kernel$'))
    expected, found = run_whole(whole, 1), run_part(part, 1)
    # Adam's first moment is (1 - b1) times the gradient; sums may be made in another order.
    expected = freezing.named(expected.opt_state[0].mu)
    for name, moment in freezing.named(found.opt_state[0].mu).items():
        np.testing.assert_allclose(moment, expected[name], rtol=1e-4, atol=1e-8, err_msg=name)
