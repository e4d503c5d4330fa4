"""From text to samples through the scripts, as a user runs them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIMES = (
    'step_seconds',
    'tokens_per_second',
    'mfu',
)  # all else in metrics.jsonl is decided by config and data
KILLS = int(os.environ.get('LATHE_TEST_KILLS', '2'))  # per data mode

pytestmark = pytest.mark.slow


def run(*command: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == status, (
        f'{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    )
    return done


@pytest.fixture(scope='module', autouse=True)
def compiled_as_for_users():
    """Without the flags of tests/conftest.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('XLA_FLAGS')
        yield


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """Flags of the shrunk quickstart on Python's own language reference, prepared."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('road')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            file.write(json.dumps({'text': text}) + '\n')
    flags = [
        '--config=configs/quickstart.py:smoke',
        f'--config.data.source={directory / "topics.jsonl"}',
        f'--config.data.path={directory / "prepared"}',
        '--config.data.eval_fraction=0.1',
    ]
    run('prepare.py', *flags)
    return flags


def metrics(workdir: Path) -> list[dict]:
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


@pytest.fixture(scope='module')
def finished(experiment, tmp_path_factory) -> Path:
    """The uninterrupted run that others are compared with."""
    workdir = tmp_path_factory.mktemp('runs') / 'uninterrupted'
    run('train.py', *experiment, f'--workdir={workdir}')
    return workdir


def test_a_run_leaves_what_the_contract_says(finished):
    for name in ('config.json', 'metrics.jsonl', 'loss.png', 'log.txt', 'tokenizer', 'samples/000030.txt'):
        assert (finished / name).exists(), name
    assert {path.name for path in (finished / 'checkpoints').iterdir() if path.is_dir()} >= {'20', '30'}
    records = [json.loads(line) for line in (finished / 'metrics.jsonl').read_text().splitlines()]
    trained = [record for record in records if 'loss' in record]
    assert [record['step'] for record in trained] == list(range(1, 31))
    names = {'loss', 'learning_rate', 'grad_norm', 'tokens_per_second', 'mfu', 'step_seconds', 'tokens_seen'}
    assert names | {'skipped_steps'} <= trained[1].keys()
    evaluated = [record for record in records if 'eval/loss' in record]
    assert [record['step'] for record in evaluated] == [10, 20, 30]
    assert {'eval/loss', 'eval/perplexity', 'eval/bits_per_byte'} <= evaluated[0].keys()
    assert trained[-1]['loss'] < trained[0]['loss'] - 0.5
    assert 0 < evaluated[-1]['eval/bits_per_byte'] < 8


def test_checkpoints_say_what_determined_them(finished):
    meta = json.loads((finished / 'checkpoints' / '30' / 'meta' / 'metadata').read_text())
    assert {
        'config',
        'step',
        'data_fingerprint',
        'tokenizer_fingerprint',
        'code_version',
        'packages',
        'mesh',
    } <= set(meta)
    assert meta['config'] == json.loads((finished / 'config.json').read_text())


def test_the_same_command_again_is_done_at_once(finished, experiment):
    before = metrics(finished)
    done = run('train.py', *experiment, f'--workdir={finished}')
    assert 'is finished' in done.stdout
    assert metrics(finished) == before


def test_evaluate_gives_what_training_reported(finished, tmp_path):
    output = tmp_path / 'metrics.json'
    run('evaluate.py', f'--checkpoint={finished}@30', '--batches=2', f'--output={output}')
    scores = json.loads(output.read_text())[f'{finished}@30']
    reported = [record for record in metrics(finished) if 'eval/loss' in record][-1]
    assert scores['eval/loss'] == pytest.approx(reported['eval/loss'], rel=1e-6)
    assert scores['eval/bits_per_byte'] == pytest.approx(reported['eval/bits_per_byte'], rel=1e-6)


def test_generate_is_repeatable_and_prompts_do_not_depend_on_each_other(finished, tmp_path):
    prompts = tmp_path / 'prompts.jsonl'
    prompts.write_text('{"prompt": "The", "id": 7}\n{"prompt": "An assignment statement"}\n')
    output = tmp_path / 'out.jsonl'
    flags = [f'--checkpoint={finished}', '--max_new_tokens=12', '--seed=3']
    run('generate.py', *flags, f'--prompts_file={prompts}', '--num_return_sequences=2', f'--output={output}')
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert records[0]['id'] == 7
    assert [len(record['completions']) for record in records] == [2, 2]
    assert all(text.startswith(record['prompt']) for record in records for text in record['completions'])
    alone = run('generate.py', *flags, '--prompt=The').stdout
    assert alone.rstrip('\n') == records[0]['completions'][0].rstrip('\n')


def test_generate_streams_stops_and_searches(finished):
    flags = ['generate.py', f'--checkpoint={finished}', '--prompt=The', '--max_new_tokens=12']
    whole = run(*flags).stdout
    assert run(*flags, '--stream').stdout == whole
    stopped = run(*flags, f'--stop={whole[5:7]}').stdout
    assert whole.startswith(stopped.removesuffix('\n'))
    assert whole[5:7] in stopped
    beams = run(*flags, '--num_beams=3', '--num_return_sequences=2', '--no_repeat_ngram_size=2').stdout
    assert len(beams.split('\n\n---\n\n')) == 2


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--num_beams=2', '--num_return_sequences=3'], 'num_return_sequences=3 exceeds num_beams=2'),
        (['--stream', '--num_beams=2'], '--num_beams=2. Leave it out'),
        (['--stream', '--prompt=b'], '2 prompts'),
        (['--stop=x', '--num_beams=2'], '--stop does not work'),
        (['--temperature=0', '--num_return_sequences=2'], 'would be the same'),
    ],
)
def test_generate_refuses_what_cannot_go_together(flags, message):
    done = run('generate.py', '--checkpoint=none', '--prompt=a', *flags, status=2)
    assert message in done.stderr


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_killed_at_random_moments_a_run_repeats_the_uninterrupted_one(mode, experiment, finished, tmp_path):
    flags = [*experiment, f'--config.data.mode={mode}', '--config.num_steps=40']
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    run('train.py', *flags, f'--workdir={whole}')
    draw = random.Random(mode)
    command = [sys.executable, 'train.py', *flags, f'--workdir={killed}']
    for _ in range(KILLS):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 120
            records = 0
            target = lines(killed) + draw.randrange(1, 12)
            while records < target and process.poll() is None and time.monotonic() < deadline:
                time.sleep(draw.random() * 0.02)
                records = lines(killed)
            process.kill()
    run('train.py', *flags, f'--workdir={killed}')
    assert metrics(killed) == metrics(whole)


def lines(workdir: Path) -> int:
    path = workdir / 'metrics.jsonl'
    return path.read_bytes().count(b'\n') if path.exists() else 0


@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_write_a_checkpoint_first(sent, status, experiment, finished, tmp_path):
    workdir = tmp_path / 'stopped'
    flags = [*experiment, '--config.checkpoint_every=0', f'--workdir={workdir}']
    with subprocess.Popen(
        [sys.executable, 'train.py', *flags], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        while lines(workdir) < 3 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(sent)
        assert process.wait(timeout=120) == status
    steps = [int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()]
    assert len(steps) == 1
    assert 3 < steps[0] < 30
    done = run('train.py', *flags)
    assert f'continuing from step {steps[0]}' in done.stdout
    losses = [record['loss'] for record in metrics(workdir) if 'loss' in record]
    assert losses == [record['loss'] for record in metrics(finished) if 'loss' in record]


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_taken(experiment, finished, tmp_path):
    import shutil

    workdir = tmp_path / 'damaged'
    shutil.copytree(finished, workdir)
    for path in (workdir / 'checkpoints' / '30' / 'state').rglob('d/*'):
        path.write_bytes(path.read_bytes()[:-20])
    done = run('train.py', *experiment, f'--workdir={workdir}')
    assert 'is damaged' in done.stdout
    assert 'continuing from step 20' in done.stdout
    assert (workdir / 'damaged' / '30').is_dir()
    assert metrics(workdir) == metrics(finished)


def test_when_all_checkpoints_are_damaged_nothing_is_touched(experiment, finished, tmp_path):
    import shutil

    workdir = tmp_path / 'ruined'
    shutil.copytree(finished, workdir)
    for path in (workdir / 'checkpoints').glob('*/meta/metadata'):
        path.write_text('{')
    for _ in range(2):
        done = run('train.py', *experiment, f'--workdir={workdir}', status=2)
        assert 'can be read' in done.stderr
    assert metrics(workdir) == metrics(finished)
    assert not (workdir / 'damaged').exists()


def test_another_shape_or_other_data_are_refused(experiment, finished, tmp_path):
    before = metrics(finished)
    done = run('train.py', *experiment, '--config.model.embed_dim=32', f'--workdir={finished}', status=2)
    assert 'does not fit this config' in done.stderr
    done = run('train.py', *experiment, '--config.data.path=/nowhere', f'--workdir={finished}', status=2)
    assert 'prepare.py' in done.stderr
    assert 'Traceback' not in done.stderr
    assert metrics(finished) == before


def test_a_changed_config_is_reported_on_resuming(experiment, finished, tmp_path):
    import shutil

    workdir = tmp_path / 'longer'
    shutil.copytree(finished, workdir)
    done = run('train.py', *experiment, '--config.num_steps=32', f'--workdir={workdir}')
    assert 'changed since: num_steps: 30 → 32' in done.stdout
    assert metrics(workdir)[-1]['step'] == 32


@pytest.mark.parametrize('argument', ['{run}@7', '{run}/checkpoints', 'nowhere'])
def test_checkpoints_that_are_not_there_are_refused(argument, finished):
    done = run('generate.py', f'--checkpoint={argument.format(run=finished)}', '--prompt=a', status=2)
    assert 'error: --checkpoint=' in done.stderr
    assert 'Traceback' not in done.stderr
