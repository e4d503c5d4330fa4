from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.errors import UserError
from data import index, loader, manifest, packing, report
from data.preparation import forget, prepare
from tests.data import tiny_tokenizers
from tests.data.test_cleaned_preparation import dirty, documents, removed  # noqa: F401
from tests.data.test_preparation import ROOT, all_rows, contents


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


def test_what_has_been_counted_cannot_be_taken_out(config):
    config.data.cooccurrence_window = 2
    prepare(config)
    before = contents(Path(config.data.path))
    with pytest.raises(UserError, match='their words have been counted'):
        forget(config, ['anything'])
    assert contents(Path(config.data.path)) == before


@pytest.fixture(params=['three symbols', 'one symbol'])
def packed(request, config, tmp_path, monkeypatch) -> ConfigDict:
    """Returns a config of rows of whole documents, some of several pieces, packed in turns by parts."""
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 9000)
    monkeypatch.setattr(packing, 'BEST_FIT_TOKENS', 2000)
    if request.param == 'one symbol':  # begins, ends and pads
        tiny_tokenizers.gpt2(tmp_path / 'gpt2')
        config.tokenizer.path = str(tmp_path / 'gpt2')
    config.data.packing = 'best_fit'
    return config


def packed_documents(config: ConfigDict) -> dict[str, list[list[int]]]:
    """Returns {id: tokens of its pieces}, found by the index in rows as they are documented."""
    directory, found = Path(config.data.path), {}
    content = manifest.load(config)
    for split in ('train', 'eval'):
        flat = all_rows(config, split).reshape(-1)
        seen = np.zeros(len(flat), bool)
        for table in index.read(directory / content[split]['index']['file']):
            for place in table.to_pylist():
                at = slice(place['start'], place['start'] + place['tokens'])
                assert not seen[at].any()
                assert place['start'] // 33 == (at.stop - 1) // 33
                seen[at] = True
                found.setdefault(place['id'], []).append(flat[at].tolist())
        assert (flat[~seen] == content['special_ids']['pad']).all()  # padding alone, at the ends of rows
        assert not (np.diff(seen.reshape(-1, 33).astype(int)) > 0).any()
        assert seen.reshape(-1, 33)[:, 0].all()
        assert seen.sum() == content[split]['tokens']
    cuts = content['train']['cuts'] + content['eval']['cuts']
    assert sum(map(len, found.values())) - len(found) == cuts
    return found


def test_rows_of_whole_documents_keep_their_others(packed: ConfigDict):
    prepare(packed)
    before, fingerprint = packed_documents(packed), loader.load(packed, split='train').fingerprint
    assert len(before) == 400
    in_rows = manifest.load(packed)['train']['rows']
    gone = [list(before)[at] for at in range(3, 390, 7)]
    gone.append(max(before, key=lambda id_: len(before[id_])))  # of several pieces
    forgotten = forget(packed, gone)
    after = packed_documents(packed)
    assert after == {id_: pieces for id_, pieces in before.items() if id_ not in gone}
    lost = sum(len(piece) for id_ in gone for piece in before[id_])
    assert forgotten == {'documents': len(set(gone)), 'tokens': lost}
    assert loader.load(packed, split='train').fingerprint != fingerprint
    assert manifest.load(packed)['train']['rows'] < in_rows  # rows that became empty

    once = contents(packed.data.path)
    assert forget(packed, gone) == {'documents': 0, 'tokens': 0}
    assert contents(packed.data.path) == once
    assert prepare(packed).was_finished
    rest = list(after)
    for some in (rest[:50], rest[50:120]):
        forget(packed, some)
    assert packed_documents(packed) == {id_: after[id_] for id_ in rest[120:]}


def test_tokens_of_packed_documents_are_those_of_their_texts(packed: ConfigDict, tmp_path: Path):
    prepare(packed)
    encoder = loader.load(packed, split='train').tokenizer
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    found = packed_documents(packed).values()
    whole = [[token for piece in pieces for token in piece[1:]] for pieces in found]  # each begins with bos
    expected = {encoder.decode(encoder.encode(text).tolist()) for text in texts}
    assert {encoder.decode(ids) for ids in whole} == expected


def test_a_killed_run_leaves_packed_rows_as_they_were(packed: ConfigDict, monkeypatch):
    prepare(packed)
    before = contents(packed.data.path)
    with monkeypatch.context() as patch:
        patch.setattr('data.forgetting._forget_examples', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(packed, list(packed_documents(packed))[:2])
    assert prepare(packed).was_finished
    assert contents(packed.data.path) == before
