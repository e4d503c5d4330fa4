from __future__ import annotations

import json
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.errors import UserError
from data import loader, manifest, sources
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer
from tests.data.test_preparation import all_rows


@pytest.fixture(params=['shards', 'stream', 'shards best_fit', 'stream best_fit'])
def prepared(request: pytest.FixtureRequest, config: ConfigDict) -> ConfigDict:
    config.data.mode, _, packing = request.param.partition(' ')
    config.data.packing = packing or 'concatenate'
    prepare(config)
    return config


def take(config: ConfigDict, count: int, **arguments) -> list[tuple[np.ndarray, np.ndarray]]:
    batches = loader.load(config, split='train', **arguments)
    return list(islice(batches.batches(batches.initial_position()), count))


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_processes_hold_parts_of_the_same_global_batch(prepared: ConfigDict, processes: int) -> None:
    whole = take(prepared, 60)
    share = prepared.batch_size // processes
    parts = [
        take(prepared, 60, rows=slice(first, first + share)) for first in range(0, prepared.batch_size, share)
    ]
    for step, (rows, position) in enumerate(whole):
        assert rows.shape == (8, 33)
        assert rows.dtype == position.dtype == np.int32
        assert np.array_equal(rows, np.concatenate([part[step][0] for part in parts]))
        assert np.array_equal(position, np.concatenate([part[step][1] for part in parts]))


def test_every_position_restores_exactly_on_any_number_of_processes(prepared: ConfigDict) -> None:
    whole = take(prepared, 40)
    for at in (0, 1, 7, 30):
        for rows in (slice(0, 8), slice(2, 4)):
            again = loader.load(prepared, split='train', rows=rows)
            for expected, got in zip(whole[at + 1 :], again.batches(whole[at][1][rows]), strict=False):
                assert np.array_equal(got[0], expected[0][rows])
                assert np.array_equal(got[1], expected[1][rows])


def test_shards_give_every_row_once_an_epoch_in_another_order(config: ConfigDict) -> None:
    prepare(config)
    rows = all_rows(config, 'train')
    config.batch_size = 5
    batches = take(config, 2 * len(rows) // 5 + 1)
    seen = np.concatenate([batch for batch, _ in batches])
    epochs = seen[: len(rows)], seen[len(rows) : 2 * len(rows)]
    for epoch in epochs:
        assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, rows.tolist()))
    assert not np.array_equal(*epochs)
    config.seed = 1
    assert not np.array_equal(take(config, 1)[0][0], batches[0][0])


def test_a_stream_reads_every_document_once_an_epoch(config: ConfigDict, tmp_path: Path) -> None:
    config.data.mode = 'stream'
    prepare(config)
    encoder = load_tokenizer(f'{config.data.path}/tokenizer')
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    expected = [text for text in texts if not sources.is_held_out(text, 0.1)]
    config.sequence_length = 1  # then the positions tell the place of every token
    batches = loader.load(config, split='train')
    position = batches.initial_position()
    found: dict[tuple[int, ...], list[int]] = {}
    for rows, after in batches.batches(position):
        for lane, (token, (counter, document, _)) in enumerate(zip(rows[:, 0], position, strict=True)):
            if counter == 0 or token == encoder.bos_id:
                found.setdefault((lane, int(counter), int(document)), []).append(int(token))
        position = after
        if position[:, 0].min() >= 1:  # 8 lanes over 8 splits: the first split of each is the first epoch
            break
    first_epoch = [encoder.decode(tokens) for (_, counter, _), tokens in found.items() if counter == 0]
    first_epoch = [text for text in first_epoch if text]
    assert sorted(first_epoch) == sorted(expected)
    assert first_epoch != expected


@pytest.mark.parametrize('name', ['corpus.txt.gz', 'corpus.jsonl'])
def test_streams_of_other_files_restore_too(config: ConfigDict, tmp_path: Path, name: str) -> None:
    import gzip

    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    content = '\n\n'.join(texts) if name.endswith('gz') else '\n'.join(json.dumps({'text': t}) for t in texts)
    (tmp_path / name).write_bytes(
        gzip.compress(content.encode()) if name.endswith('gz') else content.encode()
    )
    config.data.source = str(tmp_path / name)
    config.data.mode = 'stream'
    prepare(config)
    whole = take(config, 60)
    again = loader.load(config, split='train')
    assert np.array_equal(next(iter(again.batches(whole[50][1])))[0], whole[51][0])


def test_one_document_feeds_all_lanes(config: ConfigDict, tmp_path: Path) -> None:
    config.data.mode = 'stream'
    prepare(config)
    (tmp_path / 'corpus.txt').write_text('only this short one')
    config.data.eval_fraction = 0.0
    config.tokenizer.path = f'{config.data.path}/tokenizer/tokenizer.model'
    config.data.path = str(tmp_path / 'absent')
    rows = take(config, 3)[-1][0]
    assert (rows == 1).any(axis=1).all()
    config.data.eval_fraction = 1.0
    with pytest.raises(UserError, match='no document to train on'):
        take(config, 1)


def test_evaluation_is_one_pass_in_order_filled_up_with_pad(prepared: ConfigDict) -> None:
    prepared.eval_batches = 0
    rows = []
    for _ in range(2):
        held_out = loader.load(prepared, split='eval')
        batches = [batch for batch, _ in held_out.batches(held_out.initial_position())]
        assert len(batches) == held_out.num_batches
        rows.append(np.concatenate(batches))
    assert np.array_equal(*rows)
    prepared.data.mode = 'shards'
    prepare(prepared)
    expected = all_rows(prepared, 'eval')
    if prepared.data.packing == 'best_fit':  # prepare.py has packed half empty rows again
        assert np.array_equal(np.sort(rows[0][rows[0] > 0]), np.sort(expected[expected > 0]))
        return
    assert np.array_equal(rows[0][: len(expected)], expected)
    assert (rows[0][len(expected) :] == 0).all()


@pytest.mark.parametrize('packing', ['concatenate', 'best_fit'])
def test_stream_evaluation_stops_at_eval_batches(config: ConfigDict, packing: str) -> None:
    config.data.mode, config.data.packing = 'stream', packing
    prepare(config)
    some = loader.load(config, split='eval')
    assert some.num_batches == 3
    config.eval_batches = 0
    every = loader.load(config, split='eval')
    for few, many in zip(
        some.batches(some.initial_position()), every.batches(every.initial_position()), strict=False
    ):
        assert np.array_equal(few[0], many[0])


def test_fingerprints_follow_all_that_decides_batches(prepared: ConfigDict) -> None:
    def fingerprint() -> str:
        return loader.load(prepared, split='train').fingerprint

    first = fingerprint()
    assert fingerprint() == first
    prepared.num_steps += 1
    assert fingerprint() == first
    prepared.seed += 1
    assert fingerprint() != first


def shard_of(config: ConfigDict) -> Path:
    return Path(config.data.path) / 'train' / 'shard-00001.bin'


def cut_short(config: ConfigDict) -> None:
    shard_of(config).write_bytes(shard_of(config).read_bytes()[:-2])


def flip_a_byte(config: ConfigDict) -> None:
    content = bytearray(shard_of(config).read_bytes())
    content[1000] ^= 1
    shard_of(config).write_bytes(content)


def set_config(config: ConfigDict) -> None:
    config.sequence_length = 16


def change_format(config: ConfigDict) -> None:
    path = Path(config.data.path) / 'manifest.json'
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))


def change_tokenizer(config: ConfigDict) -> None:
    config.tokenizer.path = f'{config.data.path}/tokenizer/tokenizer.model'
    other = config.copy_and_resolve_references()
    other.tokenizer.path = ''
    other.tokenizer.vocab_size = 355
    other.data.path += '-other'
    prepare(other).tokenizer.save(Path(config.data.path) / 'tokenizer')
    config.tokenizer.path = ''


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (cut_short, r'shard-00001\.bin has \d+ bytes, the manifest says \d+'),
        (flip_a_byte, r'shard-00001\.bin does not have the checksum'),
        (lambda config: shard_of(config).unlink(), r'shard-00001\.bin is missing'),
        (lambda config: (Path(config.data.path) / 'manifest.json').unlink(), 'is not finished'),
        (set_config, 'sequence_length was 32 and is now 16'),
        (change_format, 'format 99'),
        (lambda config: (Path(config.data.path) / 'manifest.json').write_text('[1]'), 'is damaged'),
        (
            lambda config: (Path(config.data.path) / 'manifest.json').write_text('{"format": 1}'),
            'is damaged .config, dtype',
        ),
        (change_tokenizer, 'another tokenizer'),
    ],
)
def test_shards_that_are_not_what_they_should_be_are_refused(
    config: ConfigDict, damage, message: str
) -> None:
    prepare(config)
    loader.load(config, split='train')
    damage(config)
    with pytest.raises(UserError, match=message) as raised:
        loader.load(config, split='train')
    assert any(advice in str(raised.value) for advice in ('run prepare.py', 'Run prepare.py', 'repare'))


def test_directories_without_data_and_splits_without_rows_are_refused(config: ConfigDict) -> None:
    with pytest.raises(UserError, match='no prepared directory'):
        loader.load(config, split='train')
    config.data.eval_fraction = 0.0
    prepare(config)
    with pytest.raises(UserError, match=r"no rows of split 'eval'.*data\.eval_fraction"):
        loader.load(config, split='eval')
    with pytest.raises(UserError, match="'train', 'eval'"):
        loader.load(config, split='test')


def test_streams_need_the_tokenizer_that_the_config_describes(config: ConfigDict) -> None:
    config.data.mode = 'stream'
    with pytest.raises(UserError, match=r'no tokenizer at .*prepare\.py'):
        loader.load(config, split='train')
    prepare(config)
    config.tokenizer.vocab_size = 350
    with pytest.raises(UserError, match=r'tokenizer\.vocab_size was 360 and is now 350'):
        loader.load(config, split='train')


def test_streams_refuse_another_text_than_the_tokenizers(config: ConfigDict, tmp_path: Path) -> None:
    config.data.mode = 'stream'
    prepare(config)
    config.data.source = 'builtin:python-docs'
    with pytest.raises(UserError, match=r'data\.source was .* and is now .builtin:python-docs'):
        loader.load(config, split='train')


def test_a_run_records_the_text_that_its_shards_hold(config: ConfigDict) -> None:
    prepare(config)
    source = config.data.source
    config.data.source = 'builtin:python-docs'
    manifest.adopt_source(config)
    assert config.data.source == source


def test_errors_of_the_thread_reach_the_reader_and_closing_stops_it(config: ConfigDict) -> None:
    class Faulty:
        tokenizer = fingerprint = num_batches = notes = None

        def batches(self, position):
            yield np.zeros((1, 1)), position
            raise UserError('broken')

    batches = loader.Prefetched(Faulty()).batches(np.zeros(1))
    next(batches)
    with pytest.raises(UserError, match='broken'):
        next(batches)
    prepare(config)
    endless = loader.load(config, split='train')
    batches = endless.batches(endless.initial_position())
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == 'prefetch']
