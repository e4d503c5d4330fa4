"""Prepared directories behind a URL, in a store that fsspec keeps in memory; that of S3: tests/parity."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest

from configs.errors import UserError
from data import loader, manifest, mirror, storage, workers
from data.preparation import forget, prepare
from tests.data.test_cleaned_preparation import dirty, documents  # noqa: F401
from tests.data.test_preparation import contents

URL = 'memory://corpora/prepared'


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Returns what goes over to the machine of another name."""

    def go_to(name: str) -> None:
        monkeypatch.setattr('data.mirror.Path.home', lambda: tmp_path / name)

    go_to('first')
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 5000)  # several parts
    empty()
    yield go_to
    empty()


def empty() -> None:
    system = fsspec.filesystem('memory')
    system.store.clear()
    system.pseudo_dirs[:] = ['']


def stored(tmp_path: Path) -> dict[str, str]:
    """Returns what `contents` does of the files in the store."""
    place = tmp_path / 'of-the-store'
    fsspec.filesystem('memory').get('/corpora/prepared/', f'{place}/', recursive=True)
    return contents(place)


def test_parts_of_several_machines_are_the_bytes_of_one(dirty, tmp_path, monkeypatch, machine):  # noqa: F811
    prepare(dirty)
    whole = contents(dirty.data.path)
    done = []

    def run(job, arguments, *more):
        def elsewhere(*each):
            machine(f'worker-{len(done) % 2}')
            done.append(job(*each))
            machine('first')
            return done[-1]

        yield from run_here(elsewhere, arguments, *more)

    run_here = workers.run
    monkeypatch.setattr('data.preparation.workers.run', run)
    dirty.data.path = URL
    assert prepare(dirty).path == URL
    assert len(done) > 4
    assert stored(tmp_path) == whole
    machine('third')
    assert prepare(dirty).was_finished
    forget(dirty, [next(iter(documents(tmp_path / 'of-the-store')))])
    machine('first')
    assert loader.load(dirty, split='train').num_batches


@pytest.mark.parametrize('goes_on', ['first', 'second'])
@pytest.mark.parametrize('stopped_in', ['data.manifest.write', 'data.storage.upload'])
def test_what_was_stopped_goes_on_anywhere(config, tmp_path, monkeypatch, machine, goes_on, stopped_in):
    prepare(config)
    whole = contents(config.data.path)
    config.data.path = URL

    def stopped(place, content):
        names = list(content) if stopped_in.endswith('upload') else [place.name]
        if any(name.endswith('000002.json') for name in names):
            mirror.local(URL).joinpath('parts', '000002.train.parquet').write_bytes(b'half of a file')
            raise KeyboardInterrupt
        real(place, content)

    real = storage.upload if stopped_in.endswith('upload') else manifest.write
    with monkeypatch.context() as patch:
        patch.setattr(stopped_in, stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    machine(goes_on)
    assert prepare(config).path == URL
    assert stored(tmp_path) == whole


def test_half_a_part_is_replaced_by_what_another_machine_finished(config, tmp_path, monkeypatch, machine):
    prepare(config)
    whole = contents(config.data.path)
    config.data.path = URL
    with monkeypatch.context() as patch:
        patch.setattr('data.shard_writer.write_whole', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    parts = mirror.local(URL) / 'parts'
    (parts / '000002.json').unlink()
    (parts / '000002.train').write_bytes(b'')
    assert prepare(config).path == URL
    assert stored(tmp_path) == whole


def test_copies_follow_the_store(config, tmp_path, machine, capsys):
    """A damaged one is fetched again, one of what was prepared before is emptied."""
    config.data.path = URL
    prepare(config)
    machine('second')

    def rows() -> np.ndarray:
        train = loader.load(config, split='train')
        return np.stack([batch for batch, _ in islice(train.batches(train.initial_position()), 3)])

    first = rows()
    shard = mirror.local(URL) / 'train' / 'shard-00000.bin'
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert np.array_equal(rows(), first)
    assert capsys.readouterr().out.count('Fetching') == 2

    empty()
    with pytest.raises(UserError, match=rf"data\.path='{URL}' is no prepared directory"):
        manifest.load(config)
    config.sequence_length = 16
    prepare(config)
    config.data.path = str(tmp_path / 'prepared')
    prepare(config)
    assert stored(tmp_path) == contents(tmp_path / 'prepared')


def test_a_store_with_other_files_is_left_as_it_is(config):
    fsspec.filesystem('memory').pipe('/corpora/prepared/letter.txt', b'dear')
    config.data.path = URL
    with pytest.raises(UserError, match=r'letter\.txt'):
        prepare(config)
    assert list(fsspec.filesystem('memory').store) == ['/corpora/prepared/letter.txt']


def test_streams_read_their_tokenizer_from_the_store(config, machine):
    config.data.mode, config.data.path = 'stream', URL
    prepare(config)
    machine('second')
    assert loader.load(config, split='train').tokenizer.vocab_size == config.tokenizer.vocab_size
