from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.errors import UserError
from data import manifest, sources
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer

ROOT = Path(__file__).parents[2]


def contents(directory: str | Path) -> dict[str, str]:
    """Returns {relative path: hash} of all prepared files."""
    paths = [path for path in Path(directory).rglob('*') if path.is_file() and path.name != 'checked.json']
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def all_rows(config: ConfigDict, split: str) -> np.ndarray:
    """Reads the rows of a split by the documented layout, with nothing of data/shards.py."""
    content = json.loads((Path(config.data.path) / 'manifest.json').read_text())
    length, rows = content['sequence_length'], []
    stride = length + (content['config']['data.packing'] == 'best_fit')
    for shard in content[split]['shards']:
        tokens = np.fromfile(Path(config.data.path) / shard['file'], content['dtype'])
        assert len(tokens) == shard['rows'] * stride + length + 1 - stride
        rows += [tokens[row * stride : row * stride + length + 1] for row in range(shard['rows'])]
    return np.array(rows, np.int32)


def test_rows_are_the_documents_one_after_another(config: ConfigDict, tmp_path: Path) -> None:
    result = prepare(config)
    encoder = load_tokenizer(f'{config.data.path}/tokenizer')
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    for split, held_out in (('train', False), ('eval', True)):
        tokens = []
        for text in texts:
            if sources.is_held_out(text, 0.1) is held_out:
                tokens += [1, *encoder.encode(text).tolist(), 2]
        rows = all_rows(config, split)
        padding = [0] * (len(rows) * 32 + 1 - len(tokens))
        assert len(padding) < 32
        assert np.concatenate([rows[:, :-1].reshape(-1), rows[-1:, -1]]).tolist() == tokens + padding
        assert np.array_equal(rows[1:, 0], rows[:-1, -1])
        counts = result.manifest[split]
        assert (counts['tokens'], counts['rows']) == (len(tokens), len(rows))
        assert counts['cuts'] == sum(token != 1 for token in tokens[32:-1:32])
    total = result.manifest['train']['documents'] + result.manifest['eval']['documents']
    assert total == 400
    assert len(result.manifest['train']['shards']) > 1


@pytest.mark.parametrize('packing', ['concatenate', 'best_fit'])
def test_any_number_of_processes_writes_the_same_bytes(
    config: ConfigDict, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.data.packing = packing
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 5000)
    prepare(config)
    config.data.path = str(tmp_path / 'two')
    config.data.num_workers = 2
    prepare(config)
    assert contents(tmp_path / 'two') == contents(tmp_path / 'prepared')


def command(config: ConfigDict, *more: str) -> list[str]:
    keys = ('sequence_length', 'data.source', 'data.path', 'tokenizer.vocab_size', 'data.num_workers')
    values = manifest.select(config, keys)
    flags = [f'--config.{key}={value}' for key, value in values.items()]
    return [sys.executable, 'prepare.py', '--config=configs/quickstart.py', *flags, *more]


def stop(config: ConfigDict, deadly: signal.Signals) -> subprocess.CompletedProcess:
    """Runs prepare.py until one more part is finished, and stops it with a signal."""
    # A shell that runs the tests in the background has SIGINT ignored, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command(config), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    parts = Path(config.data.path) / 'parts'
    before, deadline = len(list(parts.glob('*.json'))), time.monotonic() + 60
    while len(list(parts.glob('*.json'))) == before and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    if deadly == signal.SIGINT:
        os.killpg(process.pid, deadly)  # as Ctrl-C does: all processes of the terminal
    else:
        process.send_signal(deadly)  # the workers must notice by themselves
    # Returns when every process has let go of the pipes, so none is left behind.
    output, errors = process.communicate(timeout=30)
    return subprocess.CompletedProcess([], process.returncode, output, errors)


def test_a_stopped_preparation_goes_on_to_the_same_bytes(config: ConfigDict, tmp_path: Path) -> None:
    corpus = tmp_path / 'corpus.txt'
    corpus.write_text((corpus.read_text() + '\n') * 300)  # parts of 2 MiB, of which several are read
    config.data.num_workers = 2
    assert stop(config, signal.SIGKILL).returncode == -signal.SIGKILL
    interrupted = stop(config, signal.SIGINT)
    assert interrupted.returncode == 130
    assert 'Traceback' not in interrupted.stderr
    assert 'goes on' in interrupted.stdout
    assert not (tmp_path / 'prepared' / 'manifest.json').exists()
    finished = len(list((tmp_path / 'prepared' / 'parts').glob('*.json')))
    assert finished >= 2

    again = subprocess.run(command(config), cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    assert f'Going on: {finished} of' in again.stdout
    config.data.path = str(tmp_path / 'whole')
    subprocess.run(command(config), cwd=ROOT, capture_output=True, timeout=100, check=True)
    assert contents(tmp_path / 'prepared') == contents(tmp_path / 'whole')


def test_finished_parts_are_not_done_again(config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 5000)
    monkeypatch.setattr('data.tokenising.write_shards', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 5000)
    monkeypatch.setattr('data.tokenising.tokenise_part', None)
    assert prepare(config).manifest


def test_a_finished_directory_is_recognised_and_another_config_refused(config: ConfigDict) -> None:
    first = prepare(config)
    before = contents(config.data.path)
    second = prepare(config)
    assert second.was_finished
    assert second.manifest == first.manifest
    config.sequence_length = 64
    config.data.eval_fraction = 0.2
    with pytest.raises(
        UserError, match=r'data\.eval_fraction was 0\.1 and is now 0\.2, sequence_length was 32'
    ):
        prepare(config)
    assert contents(config.data.path) == before


def test_directories_from_before_a_key_had_its_default(config: ConfigDict) -> None:
    prepare(config)
    for name in ('preparation.json', 'manifest.json'):
        path = Path(config.data.path) / name
        content = json.loads(path.read_text())
        del content['config']['tokenizer.control_symbols']
        path.write_text(json.dumps(content))
    assert prepare(config).was_finished
    config.tokenizer.control_symbols = ('<mask>',)
    with pytest.raises(UserError, match=r"control_symbols was \[\] and is now \['<mask>'\]"):
        prepare(config)


def test_control_symbols_are_trained_and_remembered(config: ConfigDict) -> None:
    config.tokenizer.control_symbols = ('<mask>', '<extra_id_0>')
    tokenizer = prepare(config).tokenizer
    assert (tokenizer.mask_id, tokenizer.sentinel_ids.tolist()) == (4, [5])
    assert prepare(config).was_finished


def test_text_may_be_gone_after_preparation_but_not_have_changed(config: ConfigDict, tmp_path: Path) -> None:
    prepare(config)
    (tmp_path / 'corpus.txt').rename(tmp_path / 'away.txt')
    assert prepare(config).was_finished
    (tmp_path / 'corpus.txt').write_text('other text')
    with pytest.raises(UserError, match='from text that has changed'):
        prepare(config)


def test_a_directory_is_prepared_by_one_process_at_a_time(config: ConfigDict, tmp_path: Path) -> None:
    (tmp_path / 'prepared').mkdir()
    handle = os.open(tmp_path / 'prepared', os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match=r'another prepare\.py'):
        prepare(config)
    os.close(handle)
    assert prepare(config).manifest


def test_a_mistake_found_early_binds_the_directory_to_nothing(config: ConfigDict) -> None:
    config.tokenizer.vocab_size = 100_000
    with pytest.raises(UserError, match=r'largest that works is \d+'):
        prepare(config)
    config.tokenizer.vocab_size = 360
    assert not prepare(config).was_finished


def test_a_foreign_directory_is_left_alone(config: ConfigDict, tmp_path: Path) -> None:
    config.data.path = str(tmp_path)
    with pytest.raises(UserError, match=r'corpus\.txt'):
        prepare(config)
    assert os.listdir(tmp_path) == ['corpus.txt']


def test_stream_mode_prepares_the_tokenizer_which_shards_then_use(config: ConfigDict) -> None:
    config.data.mode = 'stream'
    first = prepare(config)
    assert first.manifest is None
    assert prepare(config).was_finished
    config.data.mode = 'shards'
    assert prepare(config).tokenizer.fingerprint == first.tokenizer.fingerprint


def test_text_without_training_documents_is_refused(config: ConfigDict, tmp_path: Path) -> None:
    (tmp_path / 'corpus.txt').write_text(' \n\n \n')
    with pytest.raises(UserError, match='no text to train a tokenizer'):
        prepare(config)


def test_a_given_model_is_used_and_wide_vocabularies_take_four_bytes(
    config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(config)
    narrow = all_rows(config, 'train')
    config.tokenizer.path = f'{config.data.path}/tokenizer/tokenizer.model'
    config.data.path = str(tmp_path / 'wide')
    monkeypatch.setattr('data.tokenising.token_dtype', lambda _: '<u4')
    prepare(config)
    assert np.array_equal(all_rows(config, 'train'), narrow)


def test_help_teaches_within_two_seconds() -> None:
    started = time.monotonic()
    run = subprocess.run([sys.executable, 'prepare.py', '--help'], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0
    assert 'data.eval_fraction' in run.stdout
    assert time.monotonic() - started < 2
