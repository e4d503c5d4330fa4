"""Runs that begin from another model: its parameters, tokenizer and shape, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base, experiment
from configs.errors import UserError
from data import checkpoint_tokenizer
from data.sentencepiece_tokenizer import train
from parallel.mesh import make_mesh
from training import beginning, freezing, run
from training import state as states
from training.beginning import Beginning
from training.building import build_model
from training.console import Log
from training.optimizer import make_optimizer

MESH = {'data': 1, 'fsdp': -1, 'tensor': 1, 'context': 1}
TEXT = 'the king and the queen saw the cat on the mat. The king sat. ' * 30


@pytest.fixture(scope='module')
def tokenizer():
    return train([TEXT], kind='bpe', vocab_size=320, control_symbols=('<mask>',))


@pytest.fixture(scope='module')
def bert(tokenizer, tmp_path_factory) -> Path:
    """A run of a BERT for masked words, whose parameters are random."""
    config = base.get_config()
    config.objective = 'masked'
    base.shrink(config)
    config.model.update(family='bert', embed_dim=32, dropout_rate=0.2)
    mesh = make_mesh(MESH)
    model = build_model(config, tokenizer, mesh)
    params = jax.jit(lambda: states.init_params(model, seed=7))()
    directory = tmp_path_factory.mktemp('begun') / 'bert'
    run.save_as_run(run.Run(Path('made'), 5, config, {}, tokenizer, model, params, mesh), directory)
    return directory


def tuning(checkpoint: Path, **model_keys):
    config = base.get_config()
    config.initial_checkpoint = str(checkpoint)
    config.sequence_length = 32
    config.model.update(model_keys)
    return config


def start(config, workdir: Path, tmp_path: Path):
    """Returns the beginning, the first state, what it began from, and the log."""
    mesh = make_mesh(MESH)
    begins = beginning.find(config, workdir, mesh)
    model, optimizer = build_model(config, begins.tokenizer, mesh), make_optimizer(config)
    learns = freezing.learnt(config)
    abstract = states.abstract_state(model, optimizer, mesh, seed=0, ema=config.ema_decay > 0, learns=learns)
    log = Log(tmp_path / 'log.txt', quiet=True)
    state, began = begins.first_state(model, optimizer, abstract, config, begins.tokenizer, log)
    log.close()
    return begins, state, began, (tmp_path / 'log.txt').read_text()


def test_a_run_begins_with_parameters_tokenizer_and_shape_of_another(bert, tokenizer, tmp_path):
    config = tuning(bert, dropout_rate=0.1)
    config.ema_decay = 0.9
    begins, state, began, _ = start(config, tmp_path / 'run', tmp_path)
    expected = run.open_run(str(bert))
    assert begins.tokenizer.fingerprint == tokenizer.fingerprint
    for params in (state.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, params, expected.params)
    assert (config.model.family, config.model.num_layers, config.model.embed_dim) == ('bert', 2, 32)
    assert (config.model.max_length, config.model.dropout_rate) == (64, 0.1)
    assert began['checkpoint'] == f'{bert}@5'
    assert len(began['digest']) == 64


def test_new_heads_begin_at_random_and_those_of_words_may_go(bert, tmp_path):
    config = tuning(bert, num_classes=3, head='none')
    config.optimizer.frozen = ('^blocks',)
    _, state, _, log = start(config, tmp_path / 'run', tmp_path)
    params, expected = (freezing.named(p) for p in (state.whole_params(), run.open_run(str(bert)).params))
    new = {'pooler/kernel', 'pooler/bias', 'classifier/kernel', 'classifier/bias'}
    gone = {'head_dense/kernel', 'head_dense/bias', 'head_norm/scale', 'head_norm/bias', 'output_bias'}
    assert params.keys() - expected.keys() == new
    assert expected.keys() - params.keys() == gone
    assert params['classifier/kernel'].shape == (32, 3)
    assert np.std(params['classifier/kernel']) > 0
    for name in params.keys() & expected.keys():
        np.testing.assert_array_equal(params[name], expected[name], err_msg=name)
    assert f'not there, and begins at random: {", ".join(sorted(new))}' in ' '.join(log.split())
    assert f'there, and left out: {", ".join(sorted(gone))}' in ' '.join(log.split())


@pytest.mark.parametrize(
    ('model_keys', 'message'),
    [
        (
            {'num_layers': 3},
            r'model\.num_layers=3 contradicts initial_checkpoint=.*, where it is 2\. Leave it out',
        ),
        ({'norm': 'rmsnorm'}, r"model\.norm='rmsnorm' contradicts"),
        ({'max_length': 48}, r'model\.max_length=48 contradicts'),  # positions are learned: the table has 64
    ],
)
def test_another_shape_is_refused_by_name(bert, model_keys, message, tmp_path):
    with pytest.raises(UserError, match=message):
        beginning.find(tuning(bert, **model_keys), tmp_path, make_mesh(MESH))


def test_anything_but_heads_must_be_there_and_of_use(tmp_path):
    log = Log(None, quiet=True)
    kernel, table = np.zeros((2, 3)), np.zeros((4, 3))
    with pytest.raises(
        UserError, match=r'base@1 does not fit .* mlp/kernel \[2, 3\] is missing; table \[4, 3\] is l'
    ):
        beginning._fitting({'table': table}, {'mlp': {'kernel': kernel}}, 'base@1', log)
    with pytest.raises(UserError, match=r'unembed/kernel \[2, 3\] is missing'):
        beginning._fitting({}, {'unembed': {'kernel': kernel}}, 'base@1', log)
    more_classes = beginning._fitting(
        {'classifier': {'kernel': kernel}}, {'classifier': {'kernel': table}}, 'base@1', log
    )
    assert more_classes == {}


def test_a_run_that_goes_on_does_not_need_what_it_began_from(bert, tokenizer, tmp_path):
    config = tuning(bert)
    start(config, tmp_path / 'run', tmp_path)
    workdir = tmp_path / 'run'
    (workdir / 'checkpoints' / '10').mkdir(parents=True)
    tokenizer.save(workdir / 'tokenizer')
    experiment.save(config, workdir / 'config.json')
    gone = tuning(bert.with_name('gone'))
    with pytest.raises(
        UserError, match=r"began from initial_checkpoint='.*bert', not '.*gone'; give that one"
    ):
        beginning.find(gone, workdir, make_mesh(MESH))
    saved = json.loads((workdir / 'config.json').read_text())
    (workdir / 'config.json').write_text(json.dumps(saved | {'initial_checkpoint': gone.initial_checkpoint}))
    begins = beginning.find(gone, workdir, make_mesh(MESH))
    assert begins.origin is None
    assert begins.tokenizer.fingerprint == tokenizer.fingerprint
    assert gone.model == config.model


def test_nothing_is_found_without_a_name_or_at_a_wrong_one(tmp_path):
    assert beginning.find(base.get_config(), tmp_path, make_mesh(MESH)) == Beginning()
    with pytest.raises(UserError, match=r"initial_checkpoint='nowhere': .*nowhere does not exist; give"):
        beginning.find(tuning(Path('nowhere')), tmp_path, make_mesh(MESH))


def test_the_tokenizer_alone_is_found_too(bert, tokenizer):
    for name in (str(bert), f'{bert}@5', str(bert / 'tokenizer')):
        assert checkpoint_tokenizer.load(name).fingerprint == tokenizer.fingerprint
    for name in ('nowhere', 'nowhere@3', ''):
        with pytest.raises(UserError, match='is no model: give'):
            checkpoint_tokenizer.load(name)


def test_text_is_prepared_with_the_tokenizer_of_the_model_to_begin_from(bert, tokenizer, tmp_path):
    from data.preparation import prepare

    (tmp_path / 'text.txt').write_text(TEXT)
    config = tuning(bert)
    config.data.source, config.data.path = str(tmp_path / 'text.txt'), str(tmp_path / 'prepared')
    assert prepare(config).tokenizer.fingerprint == tokenizer.fingerprint
    assert prepare(config).was_finished
    other = shutil.copytree(bert, tmp_path / 'other')
    train([TEXT], kind='bpe', vocab_size=300).save(other / 'tokenizer')
    config.initial_checkpoint = str(other)
    with pytest.raises(
        UserError, match=r'was prepared with another tokenizer than that of initial_checkpoint'
    ):
        prepare(config)
