"""Training on a mixture under a curriculum, through the scripts: killed, resumed, and evaluated."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import test_layouts as layouts
from tests.test_road import lines, metrics, run

ROOT = Path(__file__).parents[1]
NAMES = ('statements', 'rest')
KILLS = int(os.environ.get('LATHE_TEST_KILLS', '1'))  # per data mode

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Two halves of the language reference, each prepared in whole documents, and a tokenizer for streams."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('mixtures')
    halves = {'statements': sorted(topics)[:30], 'rest': sorted(topics)[30:]}
    for name, chosen in halves.items():
        with (directory / f'{name}.jsonl').open('w', encoding='utf-8') as file:
            for topic in chosen:
                file.write(json.dumps({'text': topics[topic]}) + '\n')
        flags = [
            '--config.data.packing=best_fit',
            f'--config.data.source={directory / name}.jsonl',
            f'--config.data.path={directory / name}',
        ]
        if name != NAMES[0]:
            flags.append(f'--config.tokenizer.path={directory / NAMES[0]}/tokenizer')
        run('prepare.py', *layouts.flags(directory), *flags)
    run('prepare.py', *layouts.flags(directory), *mixture(directory, 'stream'))
    return directory


def mixture(directory: Path, mode: str) -> list[str]:
    """Flags: first three rows of one source to one of the other, later the other way round."""
    sources = tuple(str(directory / name) + ('.jsonl' if mode == 'stream' else '') for name in NAMES)
    return [
        f'--config.data.mode={mode}',
        f'--config.data.path={directory / "tokenizer"}',
        f'--config.data.mixture.names={NAMES}',
        f'--config.data.mixture.sources={sources}',
        '--config.data.mixture.weights=(3, 1)',
        '--config.data.mixture.curriculum=((12, 1, 3),)',
        '--config.data.packing=best_fit',
    ]


@pytest.fixture(scope='module')
def uninterrupted(directory) -> dict[str, Path]:
    """A run of each data mode."""
    runs = {mode: directory / f'run-{mode}' for mode in ('shards', 'stream')}
    for mode, workdir in runs.items():
        done = run('train.py', *layouts.flags(directory), *mixture(directory, mode), f'--workdir={workdir}')
        assert 'statements: 45.00% of all rows' in done.stdout  # 12 steps of three quarters, 18 of one
    return runs


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_killed_at_random_moments_a_mixture_repeats_the_uninterrupted_run(
    mode, directory, uninterrupted, tmp_path
):
    flags = [*layouts.flags(directory), *mixture(directory, mode), f'--workdir={tmp_path / "killed"}']
    draw = random.Random(mode)
    for _ in range(KILLS):
        command = [sys.executable, 'train.py', *flags]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 120
            target = lines(tmp_path / 'killed') + draw.randrange(1, 30)
            while lines(tmp_path / 'killed') < target and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(draw.random() * 0.02)
            process.kill()
    run('train.py', *flags)
    assert metrics(tmp_path / 'killed') == metrics(uninterrupted[mode])


def test_sources_are_evaluated_one_by_one(uninterrupted, tmp_path):
    workdir = uninterrupted['shards']
    reported = [record for record in metrics(workdir) if 'eval/loss' in record][-1]
    first, second = (reported[f'eval/{name}/loss'] for name in NAMES)
    assert min(first, second) < reported['eval/loss'] < max(first, second)
    done = run(
        'evaluate.py', f'--checkpoint={workdir}@30', '--batches=2', f'--output={tmp_path}/metrics.json'
    )
    scores = json.loads((tmp_path / 'metrics.json').read_text())[f'{workdir}@30']
    kinds = ('loss', 'perplexity', 'bits_per_byte')
    names = [f'eval/{name}{kind}' for name in ('', 'statements/', 'rest/') for kind in kinds]
    assert set(names) == {name for name in reported if name.startswith('eval/')}
    for name in names:
        assert scores[name] == pytest.approx(reported[name], rel=1e-6)
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert shown[-2:] == list(NAMES)


def test_two_processes_mix_as_one_and_one_goes_on_for_them(directory, uninterrupted, tmp_path):
    expected = layouts.losses(uninterrupted['stream'])
    assert len(expected) == 30
    more = [*mixture(directory, 'stream'), '--config.mesh.data=2', '--config.mesh.fsdp=4']
    both = layouts.start(directory, tmp_path / 'run', 2, *more)
    while not (tmp_path / 'run' / 'checkpoints' / '20').exists() and both[0].poll() is None:
        time.sleep(0.01)
    for process in both:
        process.kill()
        process.wait()
    tolerance = layouts.TOLERANCE  # on another mesh
    np.testing.assert_allclose(layouts.losses(tmp_path / 'run')[:19], expected[:19], rtol=tolerance)

    more = [*mixture(directory, 'stream'), '--config.mesh.data=4', '--config.mesh.context=2']
    layouts.finish(directory, layouts.start(directory, tmp_path / 'run', 1, *more))
    assert 'continuing from step' in (tmp_path / 'run' / 'log.txt').read_text()
    np.testing.assert_allclose(layouts.losses(tmp_path / 'run'), expected, rtol=tolerance)
