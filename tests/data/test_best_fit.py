"""Packing that never cuts a document: rows by themselves, prepared, and streamed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import experiment
from configs.errors import UserError
from data import best_fit, loader, packing, sources, summary
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer
from tests.data import tiny_tokenizers
from tests.data.test_preparation import all_rows

BOS, EOS, PAD = 1, 2, 0


def some_lengths(seed: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(3 / width, rng.integers(1, 400)), width)


def rooms_left(lengths: list[int], width: int) -> list[int]:
    """Best-fit-decreasing as the paper words it, searching all rows for each piece."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, room in enumerate(rows) if room >= length]
        if fitting:
            rows[min(fitting, key=lambda row: rows[row])] -= length
        else:
            rows.append(width - length)
    return sorted(rows)


@pytest.mark.parametrize('seed', range(20))
def test_rows_are_as_full_as_those_of_a_plain_search(seed: int) -> None:
    width = (16, 100, 257)[seed % 3]
    lengths = some_lengths(seed, width)
    rows = best_fit.best_fit_decreasing(lengths, width)
    filled = np.bincount(rows, lengths)
    assert sorted((width - filled).astype(int)) == rooms_left(lengths.tolist(), width)


@pytest.mark.parametrize('seed', range(5))
def test_every_piece_stands_whole_in_one_row_in_its_order(seed: int) -> None:
    width = 50
    lengths = some_lengths(seed, width)
    pieces = [np.full(length, 10 + number, np.int32) for number, length in enumerate(lengths)]
    rows = best_fit.pack(pieces, width, PAD)
    found, firsts = [], []
    for row in rows.tolist():
        names = list(dict.fromkeys(name for name in row if name))
        assert names == sorted(names)
        filled = [name for name in names for _ in range(row.count(name))]
        assert row == filled + [PAD] * (width - len(filled))
        found += names
        firsts.append(names[0])
    assert sorted(found) == list(range(10, 10 + len(pieces)))
    assert np.array_equal(np.sort(rows[rows > 0]), np.repeat(np.arange(10, 10 + len(pieces)), lengths))
    assert firsts == sorted(firsts)
    assert best_fit.pack([], width, PAD).shape == (0, width)


@pytest.mark.parametrize('length', [2, 9, 10, 11, 18, 19, 20, 28, 29, 100])
def test_long_documents_become_pieces_that_begin_with_bos_and_lose_nothing(length: int) -> None:
    document = np.array([BOS, *range(10, 10 + length - 2), EOS], np.int32)
    pieces = best_fit.chunks(document, 10, BOS)
    assert len(pieces) == (1 if length <= 10 else -(-(length - 1) // 9))
    assert all(piece[0] == BOS and len(piece) <= 10 for piece in pieces)
    assert np.array_equal(np.concatenate([[BOS], *(piece[1:] for piece in pieces)]), document)


def pieces_of(rows: np.ndarray) -> list[tuple[int, ...]]:
    """The runs of tokens that begin with bos, without padding."""
    found: list[list[int]] = []
    for row in rows.tolist():
        assert row[0] in (BOS, PAD)
        for token in row:
            if token == BOS:
                found.append([])
            if token != PAD:
                found[-1].append(token)
    return [tuple(piece) for piece in found]


def expected_pieces(config: ConfigDict, texts: list[str], held_out: bool) -> list[tuple[int, ...]]:
    encoder = load_tokenizer(f'{config.data.path}/tokenizer')
    pieces = []
    for text in texts:
        if sources.is_held_out(text, config.data.eval_fraction) is held_out:
            ids = [*encoder.encode(text).tolist(), EOS]
            pieces += [(BOS, *ids[at : at + 32]) for at in range(0, len(ids), 32)]
    return pieces


def test_prepared_rows_hold_whole_documents(
    config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(packing, 'BEST_FIT_TOKENS', 3000)  # several times in the part
    config.data.packing = 'best_fit'
    result = prepare(config)
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    for split in ('train', 'eval'):
        rows, counts = all_rows(config, split), result.manifest[split]
        expected = expected_pieces(config, texts, split == 'eval')
        assert sorted(pieces_of(rows)) == sorted(expected)
        assert counts['cuts'] == len(expected) - counts['documents'] > 0
        assert counts['tokens'] == sum(map(len, expected))
        assert counts['rows'] == len(rows)
        padding = 1 - counts['tokens'] / rows.size
        assert padding == pytest.approx(np.mean(rows == PAD))
    summary.show(result)
    train = result.manifest['train']
    share = 1 - train['tokens'] / (train['rows'] * 33)
    assert (
        f'best_fit: {train["cuts"]:,} cuts, {share:.2%} of the places are padding' in capsys.readouterr().out
    )


def test_a_stream_packs_every_document_once_an_epoch(config: ConfigDict, tmp_path: Path) -> None:
    config.data.mode, config.data.packing, config.batch_size = 'stream', 'best_fit', 1
    config.data.shuffle_bytes = 10_000
    prepare(config)
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')
    batches = loader.load(config, split='train')
    rows = []
    for batch, position in batches.batches(batches.initial_position()):
        rows.append(batch[0])
        if position[0, 0] == 1:  # one lane over one split: its end is that of the epoch
            break
    pieces, expected = pieces_of(np.array(rows)), expected_pieces(config, texts, held_out=False)
    assert sorted(pieces) == sorted(expected)
    assert pieces != expected


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_many_small_files_are_packed_together(config: ConfigDict, tmp_path: Path, mode: str) -> None:
    texts = (tmp_path / 'corpus.txt').read_text().rstrip('\n').split('\n\n')[:150]
    for number, text in enumerate(texts):
        (tmp_path / f'file-{number:03}.txt').write_text(text)
    config.data.source, config.data.mode = str(tmp_path / 'file-*.txt'), mode
    config.data.packing, config.batch_size, config.data.shuffle_bytes = 'best_fit', 4, 20_000
    prepare(config)
    batches = loader.load(config, split='train')
    rows, positions = zip(*islice(batches.batches(batches.initial_position()), 60), strict=True)
    assert np.mean(np.array(rows) == PAD) < 0.03
    again = loader.load(config, split='train')
    for at in (0, 17, 40):
        assert np.array_equal(next(iter(again.batches(positions[at])))[0], rows[at + 1])
    if mode == 'shards':
        whole = all_rows(config, 'train')
        assert sorted(pieces_of(whole)) == sorted(expected_pieces(config, texts, held_out=False))


@pytest.mark.parametrize('end', [EOS, PAD])
def test_packing_again_keeps_full_rows_and_every_document(end: int) -> None:
    """With one symbol for both, a row's first pad ends its last document."""
    width, parts = 32, []
    for seed in range(8):
        pieces = [
            np.array([BOS, *range(100 * number, 100 * number + length - 2), end])
            for number, length in enumerate(some_lengths(seed, width)[:30], 1)
            if length > 2
        ]
        parts.append(best_fit.pack(pieces, width, PAD))
    packed = [*best_fit.repack(parts, pad_id=PAD, eos_id=end, tokens_at_a_time=300)]
    again, numbers, starts = (np.concatenate(each) for each in zip(*packed, strict=True))
    before = np.concatenate(parts)
    assert sorted(numbers) == list(range(len(before)))
    for number, start in zip(numbers, starts, strict=True):
        row = np.trim_zeros(before[number], 'b')
        assert np.array_equal(again.reshape(-1)[start : start + len(row)], row)
    assert sorted(pieces_of(again)) == sorted(pieces_of(before))
    assert len(again) <= len(before)
    if end == PAD:  # every document but one that fills its row is still followed by its end
        for row in again:
            starts = np.flatnonzero(row == BOS)
            assert (row[starts[1:] - 1] == end).all()


def test_training_adopts_the_packing_of_its_shards(config: ConfigDict) -> None:
    from data import manifest

    config.data.packing = 'best_fit'
    prepare(config)
    rows = all_rows(config, 'train')
    config.data.packing = 'concatenate'
    train = loader.load(config, split='train')
    some = np.concatenate([batch for batch, _ in islice(train.batches(train.initial_position()), 5)])
    known = set(map(bytes, rows))
    assert all(bytes(row) in known for row in some)
    manifest.adopt_source(config)
    assert config.data.packing == 'best_fit'


def test_a_prepared_directory_is_of_one_packing(config: ConfigDict) -> None:
    prepare(config)
    config.data.packing = 'best_fit'
    with pytest.raises(UserError, match=r"data\.packing was 'concatenate' and is now 'best_fit'"):
        prepare(config)
    config.data.target_field = 'answer'
    with pytest.raises(UserError, match='which are never cut'):
        experiment.check(config)


def test_tokenizers_with_one_symbol_for_all_pack_too(config: ConfigDict, tmp_path: Path) -> None:
    """GPT-2 begins, ends and pads with one token; rows begin with it and never end within a document."""
    tiny_tokenizers.gpt2(tmp_path / 'gpt2')
    config.tokenizer.path = str(tmp_path / 'gpt2')
    config.data.packing = 'best_fit'
    prepare(config)
    rows, end = all_rows(config, 'train'), load_tokenizer(tmp_path / 'gpt2').eos_id
    assert (rows[:, 0] == end).all()
