from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from ml_collections import ConfigDict

from configs.errors import UserError
from data import cleaned, index, loader, manifest, report, shards
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer
from tests.data.cleaning.test_quality import CHINESE, PROSE
from tests.data.test_preparation import ROOT, contents

FLAGS = {
    'data.cleaning.preset': 'pretraining',
    'data.cleaning.gopher_repetition': False,
    'data.cleaning.min_characters': 20,
}


@pytest.fixture
def dirty(config: ConfigDict, tmp_path: Path) -> ConfigDict:
    """Returns a config that cleans 300 texts of two files: some broken, some doubled, some personal."""
    rng = random.Random(0)
    words = [*PROSE.split(), 'tensor', 'shard', 'the']
    texts = [' '.join(rng.choices(words, k=rng.randint(60, 90))) for _ in range(200)]
    texts += texts[:30]  # exact duplicates
    texts += [text.replace('the', 'that', 1) for text in texts[30:50]]  # near ones
    texts += [f'{CHINESE}第{number}次。' for number in range(0, 60, 20)]
    texts += ['too short a text', 'mail me@example.com ' + texts[199], 'nul\x00 ' + texts[198]]
    rng.shuffle(texts)
    (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts[:150]))
    content = (
        '\n\n'.join(texts[150:]).encode() + b'\n\n' + texts[0].encode()[:200] + b' \xff\xfe ' + PROSE.encode()
    )
    (tmp_path / 'b.txt').write_bytes(content)
    config.data.source = f'{tmp_path}/a.jsonl,{tmp_path}/b.txt'
    for key, value in FLAGS.items():
        config.update_from_flattened_dict({key: value})
    return config


def removed(directory: str | Path) -> list[dict]:
    with open(Path(directory) / 'removed.jsonl.zst', 'rb') as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding='utf-8')
        return [json.loads(line) for line in lines]


def documents(directory: str | Path) -> dict[str, str]:
    """Returns {id: text} of all documents in the shards, found by the index alone."""
    directory = Path(directory)
    content = manifest.require(directory / 'manifest.json')
    encoder = load_tokenizer(directory / 'tokenizer')
    found = {}
    for split in ('train', 'eval'):
        length = content['sequence_length']
        flat = [np.zeros(0, content['dtype'])]
        for shard in content[split]['shards']:
            flat.append(np.fromfile(directory / shard['file'], content['dtype'])[: shard['rows'] * length])
        tokens = np.concatenate(flat)
        for table in index.read(directory / content[split]['index']['file']):
            for place in table.to_pylist():
                ids = tokens[place['start'] : place['start'] + place['tokens']]
                found[place['id']] = encoder.decode(ids.tolist())
    return found


def test_shards_hold_what_is_kept_and_the_list_what_is_not(
    dirty: ConfigDict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 20_000)
    result = prepare(dirty)
    kept, gone = documents(dirty.data.path), removed(dirty.data.path)
    said = report.read(Path(dirty.data.path))
    assert len(kept) + len(gone) == said['all']['documents_in'] == 257
    assert not kept.keys() & {each['id'] for each in gone}
    assert sum('[EMAIL]' in text for text in kept.values()) == 1
    assert not any('@' in text or '\x00' in text for text in kept.values())
    assert any('\ufffd\ufffd' in text for text in kept.values())
    reasons = [each['reason'] for each in gone]
    assert (reasons.count('exact duplicate'), reasons.count('near duplicate')) == (30, 24)
    for each in gone:
        if each['step'] == 'duplicates':
            assert each['detail'] in kept
    counted = {step['step']: step for step in said['all']['steps']}
    assert counted['duplicates']['documents_dropped'] == 54
    assert (
        said['all']['documents_out']
        == len(kept)
        == sum(each['documents_out'] for each in said['sources'].values())
    )
    assert (
        said['all']['bytes_out']
        == said['tokens']['bytes']
        == sum(len(text.encode()) for text in kept.values())
    )
    assert sum(bucket['documents'] for bucket in said['lengths']) == len(kept)
    assert [each['path'] for each in result.manifest['inputs']] == dirty.data.source.split(',')
    assert (Path(dirty.data.path) / 'report.png').read_bytes().startswith(b'\x89PNG')
    assert not (Path(dirty.data.path) / 'parts').exists()


def test_any_number_of_processes_cleans_to_the_same_bytes(
    dirty: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 20_000)
    prepare(dirty)
    dirty.data.path, dirty.data.num_workers = str(tmp_path / 'two'), 2
    prepare(dirty)
    assert contents(tmp_path / 'two') == contents(tmp_path / 'prepared')


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(dirty: ConfigDict, tmp_path: Path):
    lines = (tmp_path / 'a.jsonl').read_text().splitlines()
    rng = random.Random(0)
    with open(tmp_path / 'a.jsonl', 'a') as file:
        for _ in range(60):  # enough for several parts
            for line in lines:
                words = json.loads(line)['text'].split()
                rng.shuffle(words)
                file.write(json.dumps({'text': ' '.join(words)}) + '\n')
    keys = ('sequence_length', 'data.source', 'tokenizer.vocab_size', 'data.eval_fraction', *FLAGS)
    flags = [f'--config.{key}={value}' for key, value in manifest.select(dirty, keys).items()]
    flags += ['--config.tokenizer.sample_bytes=50000', '--config.data.num_workers=2']
    command = [sys.executable, 'prepare.py', '--config=configs/quickstart.py', *flags]

    def run(directory: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, f'--config.data.path={directory}'],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    started = time.monotonic()
    assert run(tmp_path / 'whole').wait(200) == 0
    seconds = time.monotonic() - started
    for _ in range(10):
        process = run(tmp_path / 'killed')
        time.sleep(rng.uniform(0, seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run(tmp_path / 'killed').wait(200) == 0
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')


def test_each_stage_goes_on_where_it_was_stopped(
    dirty: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 20_000)
    prepare(dirty)
    dirty.data.path = str(tmp_path / 'stopped')
    for name in ('data.cleaned.clean_part', 'data.duplicates.find', 'data.tokenising.tokenise_part'):
        with monkeypatch.context() as patch:
            calls = []
            module, function = name.rsplit('.', 1)
            real = getattr(sys.modules[module], function)

            def second_time(*job, real=real, calls=calls):
                calls.append(job)
                if len(calls) == 2 or real is find:
                    raise KeyboardInterrupt
                return real(*job)

            from data.duplicates import find

            patch.setattr(name, second_time)
            with pytest.raises(KeyboardInterrupt):
                prepare(dirty)
    prepare(dirty)
    assert contents(tmp_path / 'stopped') == contents(tmp_path / 'prepared')


def test_streams_are_cleaned_as_shards_are(dirty: ConfigDict):
    dirty.data.cleaning.duplicates = ''
    dirty.data.mode = 'stream'
    prepare(dirty)
    batches = loader.load_unbuffered(dirty, 'train', slice(0, dirty.batch_size))
    found = zip(range(150), batches.batches(batches.initial_position()), strict=False)
    lanes = np.concatenate([rows[:, :-1] for _, (rows, _) in found], axis=1)
    text = '\n'.join(batches.tokenizer.decode(lane.tolist()) for lane in lanes)
    assert '[EMAIL]' in text
    assert 'example.com' not in text
    assert 'too short a text' not in text


def test_another_list_of_evaluation_texts_is_other_data(dirty: ConfigDict, tmp_path: Path):
    (tmp_path / 'exam.txt').write_text(PROSE)
    dirty.data.cleaning.evaluation_files = str(tmp_path / 'exam.txt')
    prepare(dirty)
    assert {each['reason'] for each in removed(dirty.data.path) if each['step'] == 'evaluation'} == {
        f'passage of {tmp_path}/exam.txt'
    }
    (tmp_path / 'exam.txt').write_text(PROSE * 2)
    with pytest.raises(UserError, match='changed'):
        prepare(dirty)


def test_a_mistake_in_the_first_text_binds_the_directory_to_nothing(dirty: ConfigDict):
    dirty.data.text_field = 'content'
    with pytest.raises(UserError, match='text_field'):
        prepare(dirty)
    assert list(Path(dirty.data.path).iterdir()) == []
    dirty.data.text_field = 'text'
    prepare(dirty)


def test_shards_of_clean_text_are_opened_and_recorded(dirty: ConfigDict):
    prepare(dirty)
    rows = loader.load_unbuffered(dirty, 'train', slice(0, 8))
    assert rows.num_batches
    other = dirty.copy_and_resolve_references()
    other.data.cleaning.preset = 'none'
    manifest.adopt_source(other)
    assert other.data.cleaning.personal == tuple(manifest.load(dirty)['config']['data.cleaning']['personal'])
    shards.check(Path(dirty.data.path), manifest.load(dirty)['train']['shards'])


def test_nothing_left_says_which_step_dropped_it(dirty: ConfigDict):
    dirty.data.cleaning.languages = ('de',)
    with pytest.raises(UserError, match=r'dropped by data\.cleaning language'):
        prepare(dirty)


def test_samples_are_spread_and_limited(dirty: ConfigDict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 5_000)
    dirty.tokenizer.sample_bytes = 20_000
    seen = []
    real = cleaned.sample

    def watched(*arguments):
        for text in real(*arguments):
            seen.append(text)
            yield text

    monkeypatch.setattr(cleaned, 'sample', watched)
    prepare(dirty)
    assert 10_000 < sum(map(len, seen)) < 40_000
    assert len(set(seen)) == len(seen)
