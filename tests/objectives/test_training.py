"""BERT, T5, the Transformer of 2017 and a prefix LM train as causal models do: on any mesh, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# As in tests/test_layouts.py: float32 sums in another order, grown by Adam over the steps.
TOLERANCE = 1e-4

TRAIN = """
import json, shutil, sys
from pathlib import Path
from configs import bert, gpt2, t5, transformer
from data.preparation import prepare
from training import console
import train

directory, mesh, parts = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
MODULES = {'masked': bert, 'span_corruption': t5, 'seq2seq': transformer, 'prefix_lm': gpt2}
for name, module in MODULES.items():
    config = module.get_config('smoke')
    config.objective = name
    config.batch_size = 16
    config.num_steps = 20
    config.sample_every = 0
    config.eval_every = 10 if parts == 1 else 0
    config.grad_accumulation = parts
    config.model.dropout_rate = 0.0
    config.data.path = str(directory / name)
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context = mesh
    if name == 'masked':
        config.masking.whole_words = config.masking.next_sentence = True
        config.model.num_classes = 2
    if name == 'prefix_lm':
        config.model.structure = 'prefix_decoder'
    if name == 'seq2seq':
        config.data.source = str(directory / 'pairs.jsonl')
    else:
        config.data.source = str(directory / 'topics.jsonl')
        config.data.eval_fraction = 0.1
    prepare(config)
    workdir = directory / ('-'.join(map(str, mesh)) + f'-{parts}') / name
    assert train.train(config, workdir) == 0
    if parts == 1 and max(mesh) == 1:
        whole = (workdir / 'metrics.jsonl').read_text()
        shutil.rmtree(workdir / 'checkpoints' / '20')
        assert train.train(config, workdir) == 0
        (workdir / 'whole.jsonl').write_text(whole)
"""


def train(directory: Path, mesh: tuple[int, ...], parts: int) -> Path:
    """Trains one model for each objective, and returns where their runs are."""
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={np.prod(mesh)}'
    done = subprocess.run(
        [sys.executable, '-c', TRAIN, str(directory), json.dumps(mesh), str(parts)],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Involuntary full rematerialization' not in done.stderr
    return directory / ('-'.join(map(str, mesh)) + f'-{parts}')


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Python's language reference, and pairs of its first sentences and its words in upper case."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('objectives')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            file.write(json.dumps({'text': text}) + '\n')
    with (directory / 'pairs.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            for line in text.splitlines():
                if 20 < len(line) < 60:
                    file.write(json.dumps({'text': line, 'target': line[:20].upper()}) + '\n')
    return directory


@pytest.fixture(scope='module')
def one_device(directory) -> Path:
    return train(directory, (1, 1, 1, 1), 1)


OBJECTIVES = ['masked', 'span_corruption', 'seq2seq', 'prefix_lm']
TIMES = ('step_seconds', 'tokens_per_second', 'mfu')


def metrics(path: Path) -> list[dict]:
    records = map(json.loads, path.read_text().splitlines())
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_a_resumed_run_repeats_the_uninterrupted_one(one_device, objective):
    run = one_device / objective
    assert metrics(run / 'metrics.jsonl') == metrics(run / 'whole.jsonl')
    assert 'continuing from step 10' in (run / 'log.txt').read_text()


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_the_loss_falls(one_device, objective):
    losses = [
        record['loss'] for record in metrics(one_device / objective / 'metrics.jsonl') if 'loss' in record
    ]
    assert np.mean(losses[-3:]) < losses[0] - 0.3


def test_losses_are_the_same_on_eight_devices_and_in_parts(directory, one_device):
    many = train(directory, (1, 2, 2, 2), 4)
    for objective in OBJECTIVES:
        for name in ('loss', 'grad_norm'):
            found, expected = (
                [record[name] for record in metrics(run / objective / 'metrics.jsonl') if name in record]
                for run in (many, one_device)
            )
            assert len(expected) == 20
            np.testing.assert_allclose(found, expected, rtol=TOLERANCE, err_msg=f'{objective} {name}')
