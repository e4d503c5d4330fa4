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


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_killed_at_random_moments_a_mixture_repeats_the_uninterrupted_run(mode, directory, tmp_path):
    flags = [*layouts.flags(directory), *mixture(directory, mode)]
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    done = run('train.py', *flags, f'--workdir={whole}')
    assert 'statements: 45.00% of all rows' in done.stdout  # 12 steps of three quarters, 18 of one
    evaluated = [record for record in metrics(whole) if 'eval/loss' in record]
    names = {
        'eval/loss',
        *(f'eval/{name}/{metric}' for name in NAMES for metric in ('loss', 'bits_per_byte')),
    }
    assert names <= evaluated[-1].keys()
    first, second = (evaluated[-1][f'eval/{name}/loss'] for name in NAMES)
    assert min(first, second) < evaluated[-1]['eval/loss'] < max(first, second)

    draw = random.Random(mode)
    command = [sys.executable, 'train.py', *flags, f'--workdir={killed}']
    for _ in range(KILLS):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            target = lines(killed) + draw.randrange(1, 12)
            while lines(killed) < target and process.poll() is None and time.monotonic() < deadline:
                time.sleep(draw.random() * 0.02)
            process.kill()
    run('train.py', *flags, f'--workdir={killed}')
    assert metrics(killed) == metrics(whole)

    output = tmp_path / 'metrics.json'
    done = run('evaluate.py', f'--checkpoint={whole}@30', '--batches=2', f'--output={output}')
    scores = json.loads(output.read_text())[f'{whole}@30']
    for name in names:
        assert scores[name] == pytest.approx(evaluated[-1][name], rel=1e-6)
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert shown[-2:] == list(NAMES)


def test_two_processes_mix_as_one_and_one_goes_on_for_them(directory, tmp_path):
    more = [*mixture(directory, 'stream'), '--config.mesh.data=2', '--config.mesh.fsdp=4']
    layouts.finish(directory, layouts.start(directory, tmp_path / 'one', 1, *more))
    expected = layouts.losses(tmp_path / 'one')
    assert len(expected) == 30

    both = layouts.start(directory, tmp_path / 'two', 2, *more)
    while not (tmp_path / 'two' / 'checkpoints' / '20').exists() and both[0].poll() is None:
        time.sleep(0.01)
    for process in both:
        process.kill()
        process.wait()
    tolerance = layouts.TOLERANCE
    np.testing.assert_allclose(layouts.losses(tmp_path / 'two')[:19], expected[:19], rtol=tolerance)

    more = [*mixture(directory, 'stream'), '--config.mesh.data=4', '--config.mesh.context=2']
    layouts.finish(directory, layouts.start(directory, tmp_path / 'two', 1, *more))
    assert 'continuing from step' in (tmp_path / 'two' / 'log.txt').read_text()
    np.testing.assert_allclose(layouts.losses(tmp_path / 'two'), expected, rtol=tolerance)
