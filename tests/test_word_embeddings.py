"""From text to word vectors through the scripts, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

TRAIN = """
import sys
from pathlib import Path
from configs import glove, word2vec
import train

directory = Path(sys.argv[1])
for name, mesh in (('plain', (8, 1, 1, 1)), ('cut', (2, 2, 2, 1)), ('tensor', (1, 1, 8, 1))):
    for objective, module, size in (('sg', word2vec, 'smoke'), ('glove', glove, 'smoke')):
        config = module.get_config(size)
        config.data.path = str(directory / objective)
        config.tokenizer.vocab_size = 1024
        config.checkpoint_every = config.sample_every = config.eval_every = 0
        config.num_steps = 10
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context = mesh
        assert train.train(config, directory / f'{objective}-{name}') == 0
"""


def run(*command: object, status: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, f'{command}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Python's language reference, prepared as words (sg/) and with co-occurrences (glove/)."""
    from pydoc_data.topics import topics

    directory = tmp_path_factory.mktemp('words')
    with (directory / 'topics.jsonl').open('w', encoding='utf-8') as file:
        for text in topics.values():
            file.write(json.dumps({'text': text}) + '\n')
    for name, config in (('sg', 'word2vec'), ('glove', 'glove')):
        run('prepare.py', f'--config=configs/{config}.py:smoke', *flags(directory, name))
    return directory


def flags(directory: Path, name: str) -> list[str]:
    source = f'--config.data.source={directory}/topics.jsonl'
    return [source, f'--config.data.path={directory}/{name}', '--config.tokenizer.vocab_size=1024']


def losses(workdir: Path) -> list[float]:
    records = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [record['loss'] for record in records if 'loss' in record]


@pytest.fixture(scope='module')
def trained(directory) -> Path:
    options = [*flags(directory, 'sg'), '--config.num_steps=20', '--config.eval_every=0']
    run('train.py', '--config=configs/word2vec.py:smoke', f'--workdir={directory}/run', *options)
    return directory / 'run'


def test_losses_agree_on_every_mesh(directory):
    flags = os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8'
    run('-c', TRAIN, directory, XLA_FLAGS=flags)
    for objective in ('sg', 'glove'):
        plain = losses(directory / f'{objective}-plain')
        assert plain[-1] < plain[0]
        for name in ('cut', 'tensor'):
            # Sums over devices are made in another order: float32 rounding over ten steps.
            assert losses(directory / f'{objective}-{name}') == pytest.approx(plain, rel=1e-4)


def test_a_run_is_looked_at_exported_and_imported(directory, trained):
    embeddings = lambda *words, checkpoint=trained, **options: run(  # noqa: E731
        'embeddings.py', f'--checkpoint={checkpoint}', *words, **options
    )
    nearest = embeddings('nearest', 'class', '--top=3')
    exported = directory / 'vectors.txt'
    for file_format in ('word2vec-binary', 'glove', 'word2vec'):
        embeddings('export', exported, f'--format={file_format}')
        assert embeddings('nearest', 'class', '--top=3', checkpoint=exported) == nearest
    embeddings('import', directory / 'imported', checkpoint=exported)
    assert embeddings('nearest', 'class', '--top=3', checkpoint=directory / 'imported') == nearest
    assert -1 <= float(embeddings('similarity', 'class', 'object')) <= 1
    (directory / 'q.txt').write_text(': a\nclass classes object objects\n')
    embeddings('evaluate', directory / 'q.txt', f'--output={directory}/q.json')
    assert len(json.loads((directory / 'q.json').read_text())['q.txt']['answers']) == 1
    embeddings('plot', f'--output={directory}/words.png', 'class', 'object', 'function')
    assert (directory / 'words.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        ((), 'no command given'),
        (('nearst', 'class'), "Did you mean 'nearest'"),
        (('analogy', 'class'), 'analogy takes A B C'),
        (('nearest', 'clas'), "Did you mean 'class'"),
        (('plot', 'class', 'object', 'function'), 'plot needs --output'),
        (('evaluate', 'README.md'), 'README.md, line 3'),
    ],
)
def test_mistakes_end_with_one_message(trained, words, complaint):
    message = run('embeddings.py', f'--checkpoint={trained}', *words, status=2)
    assert message.startswith('error: ')
    assert complaint in message


def test_word_embeddings_write_no_text(trained):
    message = run('generate.py', f'--checkpoint={trained}', '--prompt=class', status=2)
    assert 'neither read nor write text' in message
