from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.errors import UserError
from data import loader, manifest, report
from data.preparation import forget, prepare
from tests.data.test_cleaned_preparation import dirty, documents, removed  # noqa: F401
from tests.data.test_preparation import ROOT, contents


def shards(directory: Path, content: dict) -> list[bytes]:
    return [
        (directory / shard['file']).read_bytes()
        for name in ('train', 'eval')
        for shard in content[name]['shards']
    ]


def test_what_is_left_is_what_a_source_without_the_documents_gives(config: ConfigDict, tmp_path: Path):
    prepare(config)
    directory = tmp_path / 'prepared'
    before, fingerprint = documents(directory), loader.load(config, split='train').fingerprint
    gone = [list(before)[at] for at in (0, 7, 8, 100, -1)]
    assert forget(config, gone)['documents'] == 5
    assert documents(directory) == {id_: text for id_, text in before.items() if id_ not in gone}
    content = manifest.load(config)
    assert content['forgotten'] == sorted(gone)
    assert loader.load(config, split='train').fingerprint != fingerprint
    assert prepare(config).was_finished

    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    (tmp_path / 'corpus.txt').write_text(
        '\n\n'.join(text for text in texts if text not in {before[g] for g in gone})
    )
    config.tokenizer.path, config.data.path = str(directory / 'tokenizer'), str(tmp_path / 'again')
    again = prepare(config).manifest
    assert shards(tmp_path / 'again', again) == shards(directory, content)
    for name in ('train', 'eval'):
        for field in ('documents', 'bytes', 'tokens', 'rows'):
            assert content[name][field] == again[name][field]


def test_forgetting_in_turns_is_forgetting_at_once(config: ConfigDict, tmp_path: Path):
    prepare(config)
    gone = list(documents(config.data.path))[3:300:29]
    for id_ in gone:
        forget(config, [id_])
    in_turns = shards(tmp_path / 'prepared', manifest.load(config))
    config.data.path = str(tmp_path / 'other')
    prepare(config)
    forget(config, gone)
    assert shards(tmp_path / 'other', manifest.load(config)) == in_turns
    assert len(list((tmp_path / 'prepared').glob('train*'))) == 1  # nothing of before is left on disk


def test_rows_of_pairs_keep_their_other_pairs(tmp_path: Path, config: ConfigDict):
    lines = [{'text': f'What is {n} and {n}?', 'target': f'It is {2 * n}.'} for n in range(60)]
    (tmp_path / 'pairs.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    config.data.source, config.data.target_field = str(tmp_path / 'pairs.jsonl'), 'target'
    config.sequence_length, config.target_length = 40, 24
    prepare(config)
    before = documents_of_pairs(config)
    gone = [list(before)[at] for at in (0, 1, 2, 3, 4, 20, -1)]
    rows = manifest.load(config)['train']['rows']
    forget(config, gone)
    assert documents_of_pairs(config) == {id_: pair for id_, pair in before.items() if id_ not in gone}
    assert manifest.load(config)['train']['rows'] < rows


def documents_of_pairs(config: ConfigDict) -> dict[str, tuple[str, str]]:
    """Returns {id: (input, target)}, found by the index in rows as the loader reads them."""
    from data import index
    from data import shards as shard_files

    content, found = manifest.load(config), {}
    encoder = loader.load(config, split='train').tokenizer
    for split in ('train', 'eval'):
        width, stride = manifest.layout(content)
        layout = {'width': width, 'stride': stride, 'dtype': content['dtype']}
        rows = shard_files.Rows(Path(config.data.path), content[split]['shards'], **layout)
        flat = rows[np.arange(len(rows))][:, :-1].reshape(-1)
        for table in index.read(Path(config.data.path) / content[split]['index']['file']):
            for p in table.to_pylist():
                sides = ((p['start'], p['tokens']), (p['target_start'], p['target_tokens']))
                found[p['id']] = tuple(
                    encoder.decode(flat[start : start + count].tolist()) for start, count in sides
                )
    return found


def test_a_duplicate_is_forgotten_with_the_one_that_was_kept_instead(dirty: ConfigDict):  # noqa: F811
    prepare(dirty)
    duplicate = next(each for each in removed(dirty.data.path) if each['step'] == 'duplicates')
    assert duplicate['detail'] in documents(dirty.data.path)
    assert forget(dirty, [duplicate['id']])['documents'] == 1
    assert duplicate['detail'] not in documents(dirty.data.path)


def test_the_report_no_longer_shows_what_was_forgotten(dirty: ConfigDict):  # noqa: F811
    prepare(dirty)
    said = report.read(Path(dirty.data.path))
    shown = [each['id'] for step in said['all']['steps'] for each in step['examples']]
    kept = [id_ for id_ in shown if id_ in documents(dirty.data.path)]
    forget(dirty, kept[:1])
    assert kept[0] not in (Path(dirty.data.path) / 'report.json').read_text()


def test_unknown_ids_change_nothing_and_known_ones_may_be_named_again(config: ConfigDict):
    prepare(config)
    ids = list(documents(config.data.path))
    before = contents(config.data.path)
    with pytest.raises(UserError, match=r'holds no document .*nothing:1'):
        forget(config, [ids[0], 'nothing:1'])
    with pytest.raises(UserError, match='nothing to train on'):
        forget(config, ids)
    assert contents(config.data.path) == before
    assert forget(config, ids[:1])['documents'] == 1
    assert forget(config, ids[:1])['documents'] == 0


def test_a_killed_run_leaves_the_old_shards_and_the_next_one_sweeps(config: ConfigDict, monkeypatch):
    prepare(config)
    ids = list(documents(config.data.path))
    before = contents(config.data.path)
    with monkeypatch.context() as patch:
        patch.setattr('data.forgetting._forget_examples', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(config, ids[:2])
    assert len(documents(config.data.path)) == len(ids)
    assert prepare(config).was_finished
    assert contents(config.data.path) == before


def test_the_command_takes_ids_and_files_of_ids(config: ConfigDict, tmp_path: Path):
    prepare(config)
    ids = list(documents(config.data.path))
    (tmp_path / 'ids.txt').write_text('\n'.join(ids[2:5]))
    keys = ('sequence_length', 'data.source', 'data.path', 'tokenizer.vocab_size', 'tokenizer.sample_bytes')
    flags = [f'--config.{key}={value}' for key, value in manifest.select(config, keys).items()]
    for given, number in ((f'{ids[0]},{ids[1]}', 2), (str(tmp_path / 'ids.txt'), 3)):
        command = [sys.executable, 'prepare.py', '--config=configs/base.py', *flags, f'--forget={given}']
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert f'Removed {number} documents' in done.stdout
    assert list(documents(config.data.path)) == ids[5:]


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('packing', 'best_fit', 'where they stand is not written down'),
        ('cooccurrence_window', 2, 'their words have been counted'),
    ],
)
def test_what_cannot_be_taken_out_is_refused(config, key, value, message):
    config.data[key] = value
    prepare(config)
    before = contents(Path(config.data.path))
    with pytest.raises(UserError, match=message):
        forget(config, ['anything'])
    assert contents(Path(config.data.path)) == before
