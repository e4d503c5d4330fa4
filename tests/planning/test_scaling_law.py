"""Scaling laws: known ones recovered, optima against brute force and against the papers' tables."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import experiment, llama
from configs.errors import UserError
from data import sentencepiece_tokenizer
from planning import sizing
from planning.scaling_law import PUBLISHED, Law, fit

HOFFMANN = PUBLISHED['Hoffmann et al. 2022, approach 3']


def runs(law: Law, noise: float, seed: int = 0):
    """Parameters, tokens and losses of 45 runs under a law, with log-normal noise."""
    grid = np.meshgrid(np.geomspace(1e7, 3e9, 9), np.geomspace(2e8, 1e11, 5))
    params, tokens = (each.ravel() for each in grid)
    losses = law.loss(params, tokens)
    return params, tokens, losses * np.exp(noise * np.random.default_rng(seed).standard_normal(len(losses)))


@pytest.mark.parametrize('law', PUBLISHED.values(), ids=['hoffmann', 'besiroglu'])
def test_a_known_law_is_recovered(law):
    found = fit(*runs(law, noise=0.0), resamples=0).law
    for name in ('E', 'alpha', 'beta'):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=0.01)
    for each, other in zip(found.optimum(1e21), law.optimum(1e21), strict=True):
        assert each == pytest.approx(other, rel=0.05)


def test_intervals_hold_the_truth_and_widen_with_noise():
    widths = []
    for noise in (0.002, 0.01):
        found = fit(*runs(HOFFMANN, noise), resamples=40)
        low, high = found.interval([law.alpha for law in found.resampled], confidence=0.95)
        assert low < HOFFMANN.alpha < high
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_the_optimum_is_the_least_loss_of_the_budget():
    params = np.geomspace(1e8, 1e12, 20_001)
    for law in PUBLISHED.values():
        best = params[np.argmin(law.loss(params, 1e22 / (6 * params)))]
        assert law.optimum(1e22)[0] == pytest.approx(best, rel=2e-3)
        assert 6 * np.prod(law.optimum(1e22)) == pytest.approx(1e22)


def test_chinchilla_itself():
    """Hoffmann et al. 2022, table A3, third approach: 67 B parameters want 4.1 T tokens and 1.71e24
    operations. The table has rounded coefficients, so within a tenth."""
    params, tokens = HOFFMANN.optimum(1.71e24)
    assert params == pytest.approx(67e9, rel=0.1)
    assert tokens == pytest.approx(4.1e12, rel=0.1)


def test_too_few_runs_are_refused():
    with pytest.raises(UserError, match='at least 6 runs'):
        fit(np.array([1e6, 1e7]), np.array([1e8, 1e9]), np.array([3.0, 2.5]))


def test_shapes_have_about_the_size_that_was_asked_for():
    for params in (1e8, 1e9, 7e9, 7e10):
        shape = sizing.llama_shape(params)
        width = shape['embed_dim']
        size = shape['num_layers'] * (4 * width**2 + 3 * width * shape['mlp_dim']) + 64_000 * width
        assert size == pytest.approx(params, rel=0.35)
        assert width == shape['num_heads'] * 128
        config = llama.get_config()  # of the command that is printed
        config.model.update(shape)
        experiment.check(config)


def save_run(directory, *, steps=30, text='one two three four'):
    """Writes what train.py leaves of a run of 30 steps that did so many; returns its vocabulary's size."""
    config = llama.get_config('smoke')
    directory.mkdir()
    experiment.save(config, directory / 'config.json')
    lines = [{'step': step, 'tokens_seen': step * 512, 'loss': 3.0} for step in range(1, steps + 1)]
    lines.append({'step': steps, 'eval/loss': 2.5})
    (directory / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    tokenizer = sentencepiece_tokenizer.train([text], kind='bpe', vocab_size=512, at_most=True)
    tokenizer.save(directory / 'tokenizer')
    return tokenizer.vocab_size


def test_finished_runs_are_read(tmp_path):
    """Sizes from the resolved model, tokens and loss from the last line; unfinished runs are left out."""
    vocab_size = save_run(tmp_path / 'done')
    save_run(tmp_path / 'cut', steps=20)
    params, tokens, losses, names = sizing.read_runs(str(tmp_path / '*'))
    assert (tokens.tolist(), losses.tolist()) == ([30 * 512], [2.5])
    rows = -(-vocab_size // 128) * 128  # of two tables of width 64
    assert params.tolist() == [164_160 - 2 * 64 * (512 - rows)]
    assert names == [str(tmp_path / 'done')]


def test_runs_whose_losses_cannot_be_compared_are_refused(tmp_path):
    save_run(tmp_path / 'a')
    save_run(tmp_path / 'b', text='five six seven eight')
    with pytest.raises(UserError, match='differ in their tokenizer'):
        sizing.read_runs(str(tmp_path / '*'))
