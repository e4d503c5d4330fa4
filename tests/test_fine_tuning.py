"""Runs that begin from another: with adapters, frozen parts, early stopping; killed, on a mesh, exported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.errors import UserError
from training import freezing, run

ROOT = Path(__file__).parents[1]
TIMES = ('step_seconds', 'tokens_per_second', 'mfu')
# As in tests/test_layouts.py: float32 sums in another order, grown by Adam over the steps.
TOLERANCE = 1e-4
pytestmark = pytest.mark.slow

TRAIN = """
import json, shutil, sys
from pathlib import Path
from configs import quickstart
from data.preparation import prepare
import train

directory, mesh, names = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3].split(',')
CHANGES = {
    'base': {'initial_checkpoint': ''},
    'adapters': {'lora.rank': 4, 'lora.targets': ('kernel$',), 'optimizer.learning_rate': 1e-2},
    'frozen': {
        'optimizer.frozen': ('embedding', 'mlp/.*kernel$'), 'optimizer.layer_decay': 0.5, 'ema_decay': 0.9,
    },
    # Rates too low to change a float32: no evaluation is better than the first.
    'stopped': {
        'early_stopping': 2, 'eval_every': 5, 'checkpoint_every': 5, 'optimizer.learning_rate': 1e-30,
    },
}
for name in names:
    config = quickstart.get_config('smoke')
    config.num_steps, config.sample_every = 20, 0
    config.initial_checkpoint = str(directory / 'base')
    config.data.source = str(directory / 'topics.jsonl')
    config.data.eval_fraction = 0.1
    config.update_from_flattened_dict(CHANGES[name])
    config.data.path = str(directory / 'prepared' / ('base' if name == 'base' else 'tuned'))
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context = mesh
    prepare(config)
    workdir = directory / '-'.join(map(str, mesh)) / name if name != 'base' else directory / name
    assert train.train(config, workdir) == 0
    if max(mesh) == 1 and name in ('adapters', 'stopped'):
        shutil.copy(workdir / 'metrics.jsonl', workdir / 'whole.jsonl')
        newest = max((workdir / 'checkpoints').glob('[0-9]*'), key=lambda path: int(path.name))
        shutil.rmtree(newest)  # as if killed before it was written
        assert train.train(config, workdir) == 0
        if name == 'stopped':
            assert train.train(config, workdir) == 0
"""


def train(directory: Path, mesh: tuple[int, ...], *names: str) -> None:
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={np.prod(mesh)}'
    done = subprocess.run(
        [sys.executable, '-c', TRAIN, str(directory), json.dumps(mesh), ','.join(names)],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Involuntary full rematerialization' not in done.stderr


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """base/, and 1-1-1-1/NAME for what begins from it on one device."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('tuning')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            file.write(json.dumps({'text': text}) + '\n')
    train(directory, (1, 1, 1, 1), 'base', 'adapters', 'frozen', 'stopped')
    return directory


@pytest.fixture(scope='module')
def tuned(directory) -> Path:
    return directory / '1-1-1-1'


def metrics(path: Path) -> list[dict]:
    records = map(json.loads, path.read_text().splitlines())
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def values(workdir: Path, name: str) -> list[float]:
    return [record[name] for record in metrics(workdir / 'metrics.jsonl') if name in record]


def meta(workdir: Path, step: int) -> Path:
    return workdir / 'checkpoints' / str(step) / 'meta' / 'metadata'


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob('*') if file.is_file())


def script(*arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def test_adapters_learn_and_go_on_to_the_bit(directory, tuned):
    assert metrics(tuned / 'adapters' / 'metrics.jsonl') == metrics(tuned / 'adapters' / 'whole.jsonl')
    assert 'continuing from step 10' in (tuned / 'adapters' / 'log.txt').read_text()
    losses = values(tuned / 'adapters', 'eval/loss')
    assert losses[-1] < values(directory / 'base', 'eval/loss')[-1]


def test_losses_with_adapters_are_the_same_on_eight_devices(directory, tuned):
    train(directory, (2, 2, 2, 1), 'adapters')
    for name in ('loss', 'grad_norm', 'eval/loss'):
        found, expected = (values(where / 'adapters', name) for where in (directory / '2-2-2-1', tuned))
        assert len(expected) == (2 if name == 'eval/loss' else 20)
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, err_msg=name)


def test_checkpoints_with_adapters_hold_them_alone(directory, tuned):
    saved = json.loads(meta(tuned / 'adapters', 20).read_text())
    parameters = {name for name in saved['arrays'] if name.startswith('params/')}
    assert parameters
    assert all(name.endswith(('lora_a', 'lora_b')) for name in parameters)
    moments = {name for name in saved['arrays'] if '/mu/' in name or '/nu/' in name}
    assert len(moments) == 2 * len(parameters)
    assert not any('kernel' in name or 'embedding' in name for name in saved['arrays'])
    assert saved['initial']['checkpoint'] == f'{directory}/base@20'
    states = (path / 'checkpoints' / '20' / 'state' for path in (tuned / 'adapters', directory / 'base'))
    adapters, whole = map(size, states)
    assert adapters < whole / 4


def test_adapters_are_opened_merged_and_measure_as_in_training(tuned, tmp_path):
    output = tmp_path / 'metrics.json'
    script('evaluate.py', f'--checkpoint={tuned}/adapters@20', '--batches=2', f'--output={output}')
    (scores,) = json.loads(output.read_text()).values()
    # float32 rounding of merged kernels against sums of both products
    assert scores['eval/loss'] == pytest.approx(values(tuned / 'adapters', 'eval/loss')[-1], rel=1e-5)


def test_conversion_merges_adapters(directory, tuned, tmp_path):
    opened = run.open_run(f'{tuned}/adapters@20')
    names, before = freezing.named(opened.params), freezing.named(run.open_run(f'{directory}/base@20').params)
    assert names.keys() == before.keys()
    assert {name for name in names if not np.array_equal(names[name], before[name])} == {
        name for name in names if name.startswith('blocks') and name.endswith('kernel')
    }
    for target, options in (('run', []), ('hub', ['--format=huggingface'])):
        script('convert.py', f'--from={tuned}/adapters@20', f'--to={tmp_path / target}', *options)
        jax.tree.map(
            np.testing.assert_array_equal, run.open_run(str(tmp_path / target)).params, opened.params
        )


@pytest.mark.parametrize(
    ('change', 'message'),
    [({'digest': '0' * 64}, 'is not the model that the adapters were trained on'),
     ({'checkpoint': 'gone@20'}, 'the adapters belong to gone@20, which must be there')],
)  # fmt: skip
def test_adapters_without_their_model_are_refused(change, message, tuned, tmp_path):
    workdir = Path(shutil.copytree(tuned / 'adapters', tmp_path / 'adapters'))
    saved = json.loads(meta(workdir, 20).read_text())
    meta(workdir, 20).write_text(json.dumps(saved | {'initial': saved['initial'] | change}))
    with pytest.raises(UserError, match=message):
        run.open_run(f'{workdir}@20')


def test_frozen_parameters_are_those_of_the_initial_checkpoint(directory, tuned):
    before, after = (
        freezing.named(run.open_run(f'{where}@20').params) for where in (directory / 'base', tuned / 'frozen')
    )
    for name, array in before.items():
        still = 'embedding' in name or (name.startswith('blocks/mlp') and name.endswith('kernel'))
        assert np.array_equal(array, after[name]) == still, name


def test_training_stops_when_evaluations_are_no_longer_better(tuned):
    workdir = tuned / 'stopped'
    assert [record['step'] for record in metrics(workdir / 'metrics.jsonl') if 'eval/loss' in record] == [
        5,
        10,
        15,
    ]
    assert metrics(workdir / 'metrics.jsonl') == metrics(workdir / 'whole.jsonl')
    log = (workdir / 'log.txt').read_text()
    assert 'continuing from step 10' in log
    assert log.count('finished 15 steps, since eval/loss is not better than') == 2
    assert 'is finished: 15 of 20 steps are done, since eval/loss is not better' in log
    assert run.open_run(str(workdir)).step == 15, 'the newest of equals'
