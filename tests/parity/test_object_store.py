"""prepare.py into an S3 bucket, over the protocol itself: a directory's bytes, and training from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.parity.preparations import ROOT, begin, contents, write_topics

pytest.importorskip('s3fs')
moto_server = pytest.importorskip('moto.server')
pytestmark = pytest.mark.slow
CLEAN = ('--config.data.cleaning.preset=pretraining', '--config.data.cleaning.languages=()')


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """What processes need to reach a store that holds the bucket `corpora`."""
    server = moto_server.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        'FSSPEC_S3_ENDPOINT_URL': f'http://{host}:{port}',
        'AWS_ACCESS_KEY_ID': 'a-name',
        'AWS_SECRET_ACCESS_KEY': 'a-secret',
        'AWS_DEFAULT_REGION': 'us-east-1',
        'HOME': str(tmp_path_factory.mktemp('home')),
    }
    store(found).mkdir('corpora')
    yield found
    server.stop()


def store(environment: dict[str, str]):
    import s3fs

    return s3fs.S3FileSystem(
        key='a-name', secret='a-secret', endpoint_url=environment['FSSPEC_S3_ENDPOINT_URL'],
        use_listings_cache=False, skip_instance_cache=True,
    )  # fmt: skip


def stored(environment: dict[str, str], name: str) -> dict[str, bytes]:
    system = store(environment)
    return {
        path.removeprefix(f'corpora/{name}/'): system.cat_file(path)
        for path in system.find(f'corpora/{name}')
    }


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """Three parts of at most 2 MiB."""
    path = tmp_path_factory.mktemp('text') / 'topics.txt'
    write_topics(path, 4_500_000)
    return path


@pytest.fixture(scope='module')
def whole(source, environment) -> dict[str, bytes]:
    """What is written to a directory of this machine."""
    run(environment, source, source.parent / 'whole')
    return contents(source.parent / 'whole')


def run(environment: dict[str, str], source: Path, place: object, *more: str) -> str:
    process = begin(source, place, *CLEAN, *more, environment=environment)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize('engine', ['processes', 'ray'])
def test_the_store_holds_the_bytes_of_a_directory(source, whole, environment, engine):
    if engine == 'ray':
        pytest.importorskip('ray')
    output = run(environment, source, f's3://corpora/{engine}', f'--engine={engine}')
    assert f's3://corpora/{engine}' in output
    assert stored(environment, engine) == whole
    assert 'nothing to do' in run(environment, source, f's3://corpora/{engine}')


@pytest.mark.parametrize('machine', ['this', 'another'])
def test_a_killed_preparation_goes_on_from_its_parts(source, whole, environment, machine, tmp_path):
    process = begin(source, f's3://corpora/{machine}', *CLEAN, environment=environment)
    finished, deadline = [], time.monotonic() + 200
    while not finished and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        finished = store(environment).glob(f'corpora/{machine}/parts/*.clean.json')
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)
    assert 'manifest.json' not in stored(environment, machine)
    if machine == 'another':
        environment = {**environment, 'HOME': str(tmp_path)}
    assert 'Going on' in run(environment, source, f's3://corpora/{machine}')
    assert stored(environment, machine) == whole


def test_training_and_forgetting(source, whole, environment, tmp_path):
    """Of an embedded corpus, as another machine than that which prepared it."""
    place = '--config.data.path=s3://corpora/quickstart'

    def lathe(script: str, *more: str, home: Path) -> str:
        command = [sys.executable, script, '--config=configs/quickstart.py:smoke', place, *more]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, 'HOME': str(home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lathe('prepare.py', home=tmp_path / 'one')
    assert 'Fetching' in lathe('train.py', f'--workdir={tmp_path}/run', home=tmp_path / 'two')
    from pyarrow import parquet

    system = store(environment)
    with system.open('corpora/quickstart/train/documents.parquet') as file:
        id_ = parquet.read_table(file)['id'][0].as_py()
    assert 'Removed 1 documents' in lathe('prepare.py', f'--forget={id_}', home=tmp_path / 'three')
    names = stored(environment, 'quickstart')
    assert 'train-1/shard-00000.bin' in names
    assert not [name for name in names if name.startswith('train/')]
    assert 'Fetching' in lathe('train.py', f'--workdir={tmp_path}/forgot', home=tmp_path / 'two')


@pytest.mark.parametrize(
    ('place', 'more', 'message'),
    [
        ('s3://no-such-bucket/x', {}, 'there is no such file or bucket'),
        ('s3://corpora/x', {'AWS_ACCESS_KEY_ID': '', 'AWS_SECRET_ACCESS_KEY': ''}, 'Give credentials'),
        ('s3://corpora/x', {'FSSPEC_S3_ENDPOINT_URL': 'http://localhost:9'}, 'Try again later'),
        ('adl://corpora/x', {}, 'Install the package that fsspec needs'),
    ],
)
def test_what_is_wrong_with_the_store_is_said_before_any_work(source, environment, place, more, message):
    environment = {**environment, **more, 'AWS_EC2_METADATA_DISABLED': 'true'}
    process = begin(source, place, *CLEAN, environment=environment)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    assert message in output
    assert 'Traceback' not in output
    assert 'Cleaning' not in output
