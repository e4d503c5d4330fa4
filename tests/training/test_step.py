import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import objectives
from configs import quickstart
from model import families
from model.transformer import Transformer
from parallel.mesh import make_mesh
from training.optimizer import make_optimizer, make_schedule
from training.state import abstract_state, create
from training.step import make_train_step

TOKENIZER = SimpleNamespace(bos_id=1, eos_id=2, pad_id=0)


def rows(count: int = 8, seed: int = 0) -> np.ndarray:
    """Packed rows with document starts; the last row is mostly padding, so that weights differ by row."""
    drawn = np.random.default_rng(seed).integers(1, 500, (count, 33)).astype(np.int32)
    drawn[-1, 5:] = 0
    return drawn


class Training:
    """The real step of the shrunk quickstart."""

    def __init__(self, **changes):
        config = quickstart.get_config('smoke')
        config.sequence_length = 32
        config.optimizer.warmup_steps = 0
        config.update_from_flattened_dict(changes)
        self.config = config
        self.model = Transformer(families.resolve(config, vocab_size=512))
        optimizer = make_optimizer(config)
        mesh = make_mesh(config.mesh)
        self.abstract = abstract_state(
            self.model,
            optimizer,
            mesh,
            seed=0,
            ema=config.ema_decay > 0,
            offload=config.optimizer.offload,
        )
        self.state = create(self.model, optimizer, self.abstract, seed=0)
        step = make_train_step(self.model, objectives.get('causal'), config, optimizer, make_schedule(config))
        self.step = jax.jit(step)

    def run(self, *batches: np.ndarray):
        metrics = {}
        for batch in batches:
            made = objectives.get('causal').make_batch(batch, tokenizer=TOKENIZER)
            self.state, metrics = self.step(self.state, made)
        return jax.device_get(metrics)


def test_accumulation_gives_the_same_step():
    whole, parts = Training(), Training(grad_accumulation=4)
    for batch in (rows(seed=0), rows(seed=1), rows(seed=2)):
        one, four = whole.run(batch), parts.run(batch)
        # The sums are the same, added in another order: float32 rounding, some 1e-6 per sum.
        assert four['loss'] == pytest.approx(one['loss'], rel=1e-5)
        assert four['grad_norm'] == pytest.approx(one['grad_norm'], rel=1e-4)


def test_padding_changes_nothing():
    """Rows of padding alone add no weight: the step equals that without them."""
    plain, padded = Training(batch_size=8), Training(batch_size=16)
    one = plain.run(rows())
    two = padded.run(np.concatenate([rows(), np.zeros((8, 33), np.int32)]))
    assert two['loss'] == pytest.approx(one['loss'], rel=1e-5)
    assert two['grad_norm'] == pytest.approx(one['grad_norm'], rel=1e-4)


def test_loss_falls_on_a_batch_seen_again():
    training = Training()
    first = training.run(rows())['loss']
    assert training.run(*[rows()] * 20)['loss'] < first - 1


def test_steps_that_are_not_finite_are_skipped_and_counted():
    training = Training()
    training.run(rows())
    before = jax.device_get(training.state)
    broken = jax.tree.map(lambda x: x, training.state.params)
    broken['final_norm']['scale'] = broken['final_norm']['scale'] * np.nan
    training.state = training.state._replace(params=broken)
    metrics = training.run(rows(), rows())
    assert (metrics['skipped_steps'], metrics['skipped_in_a_row']) == (2, 2)
    assert int(training.state.step) == 3
    jax.tree.map(np.testing.assert_array_equal, before.opt_state, jax.device_get(training.state.opt_state))
    training.state = training.state._replace(params=before.params)
    metrics = training.run(rows())
    assert (metrics['skipped_steps'], metrics['skipped_in_a_row']) == (2, 0)


def test_clipping_bounds_the_gradient():
    free, clipped = Training(**{'optimizer.clip_norm': 0.0}), Training(**{'optimizer.clip_norm': 1e-3})
    one, two = free.run(rows()), clipped.run(rows())
    assert one['grad_norm'] == pytest.approx(two['grad_norm'], rel=1e-6), (
        'the norm before clipping is reported'
    )
    # After one step Adam's first moment is (1 - b1) times the clipped gradient.
    moment = jax.tree.leaves(clipped.state.opt_state[0].mu)
    norm = np.sqrt(sum(float((np.asarray(m, np.float64) ** 2).sum()) for m in moment)) / (1 - 0.9)
    assert norm == pytest.approx(1e-3, rel=1e-4)


def test_moving_average_follows_its_formula():
    training = Training(ema_decay=0.75)
    average = jax.device_get(training.state.params)
    for made in range(60):
        training.run(rows(seed=made))
        decay = min(0.75, (1 + made) / (10 + made))
        average = jax.tree.map(
            lambda a, p, d=decay: d * a + (1 - d) * np.asarray(p),
            average,
            jax.device_get(training.state.params),
        )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, jax.device_get(training.state.ema_params), average)


def test_dropout_depends_on_the_step_and_the_seed_alone():
    one, two = Training(**{'model.dropout_rate': 0.5}), Training(**{'model.dropout_rate': 0.5})
    assert one.run(rows())['loss'] == two.run(rows())['loss']
    other = Training(**{'model.dropout_rate': 0.5, 'seed': 1})
    assert other.run(rows())['loss'] != Training(**{'model.dropout_rate': 0.5}).run(rows())['loss']
