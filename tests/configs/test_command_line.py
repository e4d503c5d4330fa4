import subprocess
import sys
from pathlib import Path

import pytest

from configs import base, command_line, experiment
from configs.errors import UserError

ROOT = Path(__file__).parents[2]
EXPERIMENTS = [
    'quickstart.py', 'quickstart.py:smoke', 'gpt2.py', 'gpt2.py:small', 'gpt2.py:medium', 'gpt2.py:large',
    'gpt2.py:xl', 'gpt2.py:smoke', 'llama.py', 'llama.py:60m', 'llama.py:300m', 'llama.py:1b', 'llama.py:7b',
    'llama.py:smoke',
]  # fmt: skip


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def load(experiment_file: str):
    import importlib

    name, _, argument = experiment_file.partition(':')
    module = importlib.import_module(f'configs.{name.removesuffix(".py")}')
    return module.get_config(argument) if argument else module.get_config()


def test_every_key_of_the_defaults_is_explained():
    assert set(command_line.flatten(base.get_config())) == set(command_line.documented_keys())


def test_explanations_go_on_in_the_lines_below():
    _, explanation = command_line.documented_keys()['model.remat']
    assert "'none'" in explanation
    assert explanation.endswith("'full' (all but what enters a block)")


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_experiment_passes_its_checks_and_survives_the_disk(name, tmp_path):
    config = load(name)
    experiment.check(config)
    experiment.save(config, tmp_path / 'config.json')
    assert experiment.load(tmp_path / 'config.json').to_dict() == config.to_dict()


def test_an_experiment_cannot_invent_keys():
    with pytest.raises(AttributeError, match='learning_rat'):
        base.get_config().optimizer.learning_rat = 1.0


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'batch_size': 10, 'grad_accumulation': 4}, 'use a multiple of 4'),
        ({'num_steps': 0}, 'num_steps=0 is too small'),
        ({'optimizer.warmup_steps': 1000}, 'use fewer warm-up steps'),
        ({'optimizer.learning_rate': 0.0}, 'must be above 0'),
        ({'optimizer.offload': True, 'optimizer.layer_decay': 0.9}, 'leave one of them out'),
        ({'optimizer.schedule': 'cosin'}, "Did you mean 'cosine'"),
        ({'data.eval_fraction': 1.5}, 'is a share'),
        ({'data.mode': 'shard'}, "'shards'"),
        ({'profile_steps': (3,)}, 'first, last'),
        ({'optimizer.learning_rate': float('nan')}, 'learning_rate=nan must be a finite number'),
        ({'model.norm_epsilon': -1.0}, 'norm_epsilon=-1.0 must be above 0'),
        ({'tokenizer.character_coverage': 0.5}, 'must be from 0.98 to 1'),
        ({'tokenizer.sample_bytes': 0}, 'tokenizer.sample_bytes=0 is too small'),
        ({'sample_prompts': (1,)}, 'must hold texts'),
        ({'optimizer.weight_decay_exclude': ('(',)}, 'is no regular expression'),
        ({'optimizer.frozen': ('(',)}, 'optimizer.frozen: .* is no regular expression'),
        ({'early_stopping': -1}, 'early_stopping=-1 is too small'),
        ({'early_stopping': 2, 'best_metric': ''}, 'which must be saved: set best_metric'),
        (
            {'early_stopping': 2, 'eval_every': 10, 'checkpoint_every': 20},
            'eval_every to a multiple of checkp',
        ),
        ({'lora.rank': 2}, 'lora.rank=2 is for a trained model, which initial_checkpoint must name'),
        ({'lora.alpha': 0.0}, 'lora.alpha=0.0 must be above 0'),
        ({'optimizer.layer_decay': 0.9}, 'optimizer.layer_decay=0.9 is for a trained model'),
        ({'optimizer.layer_decay': 1.1}, 'layer_decay=1.1 must be from'),
        ({'initial_checkpoint': 'a', 'model.embedding_vectors': 'b'}, 'leave one of them out'),
        ({'tokenizer.control_symbols': (1,)}, 'must hold texts'),
        ({'tokenizer.control_symbols': ('<a>', '<a>')}, "'<a>' is there twice"),
        ({'tokenizer.control_symbols': ('a b',)}, 'holds a space'),
        ({'tokenizer.control_symbols': ('</s>',)}, 'a piece of every tokenizer already'),
    ],
)
def test_impossible_combinations_are_refused(changes, message):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        experiment.check(config)


@pytest.mark.parametrize('script', ['prepare.py', 'train.py', 'evaluate.py', 'generate.py', 'convert.py'])
def test_help_teaches_and_imports_nothing_slow(script):
    done = run('-X', 'importtime', script, '--help')
    assert done.returncode == 0
    assert 'python ' + script in done.stdout, 'an example to copy'
    assert 'ml_collections' in done.stderr, 'the imports are listed'
    for slow in ('jax', 'flax', 'orbax', 'sentencepiece', 'wandb', 'matplotlib'):
        assert f' {slow}\n' not in done.stderr
    if script in ('prepare.py', 'train.py'):
        assert '--config.optimizer.learning_rate=' in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--config=configs/quickstart.py', '--config.optimizer.learning_rat=1'],
            "Did you mean 'optimizer.learning_rate'",
        ),
        (['--config=configs/quickstart.py', '--config.num_stesp=1'], "Did you mean 'num_steps'"),
        (['--config=configs/quickstart.py', '--config.num_steps=many'], 'many'),
        (['--config=configs/quickstart.py:smok'], "Did you mean 'smoke'"),
        (['--config=configs/absent.py'], 'absent.py'),
        ([], '--config=configs/quickstart.py'),
        (['--config=configs/quickstart.py', '--wrkdir=x'], 'workdir'),
        (['--config=configs/quickstart.py', 'smoke'], 'is not a flag'),
    ],
)
def test_mistakes_end_with_one_message_and_status_2(arguments, message, tmp_path):
    done = run('train.py', *arguments, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'run').exists()
