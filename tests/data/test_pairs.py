"""Pairs of texts: from JSON lines to rows of inputs and targets, and back."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import experiment
from configs.errors import UserError
from data import loader, sources, summary, tokenising
from data.preparation import prepare
from data.tokenizer import load as load_tokenizer
from tests.data import tiny_tokenizers
from tests.data.conftest import WORDS
from tests.data.test_preparation import contents

CHINESE = [
    ('敏捷的狐狸跳过懒狗。', 'The fox jumps.'),
    ('语言模型\n学习文字。', '模型学习'),
    ('你好 世界', ' hello'),
]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({'text': text, 'answer': answer}, ensure_ascii=False) for text, answer in pairs]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def some_pairs(number: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [
        (f'{n} ' + ' '.join(rng.choices(WORDS, k=rng.randint(1, 9))), ' '.join(rng.choices(WORDS, k=3)))
        for n in range(number)
    ]


@pytest.fixture
def pairs(config: ConfigDict, tmp_path: Path) -> list[tuple[str, str]]:
    """Writes pairs, and makes `config` prepare them in rows of 64 + 40 tokens."""
    pairs = some_pairs(300) + CHINESE * 20
    write_pairs(tmp_path / 'pairs.jsonl', pairs)
    config.sequence_length = 64
    config.target_length = 40
    config.data.source = str(tmp_path / 'pairs.jsonl')
    config.data.target_field = 'answer'
    return pairs


def rows_of(config: ConfigDict, split: str, stride: int = 104) -> np.ndarray:
    """Reads the rows of a split, without the column that is to be ignored, with nothing of data/."""
    content = json.loads((Path(config.data.path) / 'manifest.json').read_text())
    rows = [np.zeros((0, stride), np.int32)]
    for shard in content[split]['shards']:
        tokens = np.fromfile(Path(config.data.path) / shard['file'], content['dtype'])
        assert len(tokens) == shard['rows'] * stride + 1
        rows.append(tokens[:-1].reshape(-1, stride).astype(np.int32))
    return np.concatenate(rows)


def sides(row: np.ndarray, eos: int, pad: int, length: int = 64) -> list[list[list[int]]]:
    """Returns the ids of the inputs and of the targets in a row."""
    found = []
    for side in (row[:length].tolist(), row[length:].tolist()):
        texts = []
        while eos in side and (eos != pad or side[0] != eos):
            cut = side.index(eos)
            texts.append(side[:cut])
            side = side[cut + 1 :]
        assert set(side) <= {pad}
        found.append(texts)
    assert len(found[0]) == len(found[1]) > 0
    return found


def read_back(config: ConfigDict, split: str) -> list[tuple[str, str]]:
    encoder = load_tokenizer(f'{config.data.path}/tokenizer')
    texts = []
    for row in rows_of(config, split):
        inputs, targets = sides(row, encoder.eos_id, encoder.pad_id)
        texts += [(encoder.decode(i), encoder.decode(t)) for i, t in zip(inputs, targets, strict=True)]
    return texts


def test_rows_hold_the_pairs_in_their_order(config: ConfigDict, pairs: list[tuple[str, str]]) -> None:
    result = prepare(config).manifest
    for split, held_out in (('train', False), ('eval', True)):
        expected = [pair for pair in pairs if sources.is_held_out(pair[0], 0.1) is held_out]
        assert read_back(config, split) == expected
        assert result[split]['documents'] == len(expected) > 10
        assert result[split]['bytes'] == sum(len((text + answer).encode()) for text, answer in expected)
        assert result[split]['rows'] == len(rows_of(config, split))
    assert result['config']['data.target_field'] == 'answer'
    assert (result['config']['target_length'], result['target_length']) == (40, 40)
    assert len(result['train']['shards']) > 1


def test_rows_are_filled_as_far_as_the_next_pair_allows(config: ConfigDict, pairs: list) -> None:
    result = prepare(config).manifest
    rows = [sides(row, 2, 0) for row in rows_of(config, 'train')]
    sizes = [[sum(len(ids) + 1 for ids in side) for side in row] for row in rows]
    assert sum(map(sum, sizes)) == result['train']['tokens']
    for (inputs, targets), (next_inputs, next_targets) in zip(sizes, rows[1:], strict=False):
        assert inputs + len(next_inputs[0]) + 1 > 64 or targets + len(next_targets[0]) + 1 > 40


def test_a_pair_may_fill_a_row_to_the_last_token(config: ConfigDict, tmp_path: Path) -> None:
    tiny_tokenizers.gpt2(tmp_path / 'gpt2')
    config.tokenizer.path = str(tmp_path / 'gpt2')
    config.data.target_field, config.target_length = 'answer', 4
    config.data.source = str(tmp_path / 'exact.jsonl')
    config.data.eval_fraction = 0.0
    exact = [('x' * 31, 'yyy'), ('x' * 32, 'y'), ('x', 'yyyy'), ('a', 'b'), ('c', 'd'), ('e', 'f')]
    write_pairs(tmp_path / 'exact.jsonl', exact)
    result = prepare(config).manifest
    encoder = load_tokenizer(config.tokenizer.path)
    assert encoder.pad_id == encoder.eos_id
    rows = [sides(row, encoder.eos_id, encoder.pad_id, 32) for row in rows_of(config, 'train', 36)]
    texts = [[tuple(encoder.decode(ids) for ids in pair) for pair in zip(*row, strict=True)] for row in rows]
    assert texts == [[exact[0]], [exact[3], exact[4]], [exact[5]]]
    assert (result['train']['left_out_long_input'], result['train']['left_out_long_target']) == (1, 1)


def test_pairs_that_no_row_holds_are_counted(
    config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_tokenizers.gpt2(tmp_path / 'gpt2')
    config.tokenizer.path = str(tmp_path / 'gpt2')
    config.data.target_field, config.target_length = 'answer', 10
    config.data.source = str(tmp_path / 'some.jsonl')
    config.data.eval_fraction = 0.0
    long = 'xy ' * 40
    bad = [('', 'a'), ('a', ' \n'), ('\t', ''), (long, 'a'), (long, long), ('a', long)]
    bad += [('a<|endoftext|>b', 'a'), ('a', '<|endoftext|>')]
    write_pairs(tmp_path / 'some.jsonl', [*bad, ('fox', 'dog')])
    result = prepare(config)
    reasons = {'empty': 3, 'end_symbol': 2, 'long_input': 2, 'long_target': 1}
    counts = result.manifest['train']
    assert {reason: counts[f'left_out_{reason}'] for reason in reasons} == reasons
    assert counts['documents'] == 1
    summary.show(result)
    printed = capsys.readouterr().out
    for line in ('3 with an empty text', '2 with an end symbol', '1 with a target longer than target_length'):
        assert f'left out   {line}' in printed
    assert 'of 32 + 10 tokens' in printed

    write_pairs(tmp_path / 'bad.jsonl', bad)
    config.data.source, config.data.path = str(tmp_path / 'bad.jsonl'), str(tmp_path / 'bad')
    with pytest.raises(UserError, match=r'no training document .*left out 3 with an empty text, left out 2'):
        prepare(config)


def test_processes_and_interruptions_leave_no_trace(
    config: ConfigDict, pairs: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('data.preparation.SPLIT_BYTES', 3000)
    prepare(config)
    assert read_back(config, 'train') == [pair for pair in pairs if not sources.is_held_out(pair[0], 0.1)]
    config.data.path, config.data.num_workers = str(tmp_path / 'two'), 2
    prepare(config)
    assert contents(tmp_path / 'two') == contents(tmp_path / 'prepared')

    def interrupted(*job):
        if job[0] == 3:
            raise KeyboardInterrupt
        return tokenise_part(*job)

    tokenise_part = tokenising.tokenise_part
    config.data.path, config.data.num_workers = str(tmp_path / 'stopped'), 1
    monkeypatch.setattr('data.tokenising.tokenise_part', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.setattr('data.tokenising.tokenise_part', tokenise_part)
    assert len(list((tmp_path / 'stopped' / 'parts').glob('*.json'))) == 3
    prepare(config)
    assert contents(tmp_path / 'stopped') == contents(tmp_path / 'prepared')


@pytest.mark.parametrize('processes', [1, 2])
def test_loaders_give_whole_rows_and_one_column_more(config: ConfigDict, pairs: list, processes: int) -> None:
    prepare(config)
    share = config.batch_size // processes
    parts = [slice(first, first + share) for first in range(0, config.batch_size, share)]
    loaders = [loader.load(config, split='train', rows=part) for part in parts]
    streams = [islice(each.batches(each.initial_position()), loaders[0].num_batches) for each in loaders]
    batches = [np.concatenate([rows for rows, _ in step]) for step in zip(*streams, strict=True)]
    assert batches[0].shape == (8, 105)
    assert batches[0].dtype == np.int32
    expected = rows_of(config, 'train')
    seen = np.concatenate(batches)[: len(expected), :-1]
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))
    held_out = loader.load(config, split='eval')
    rows = np.concatenate([rows for rows, _ in held_out.batches(held_out.initial_position())])[:, :-1]
    expected = rows_of(config, 'eval')
    assert np.array_equal(rows[: len(expected)], expected)
    assert (rows[len(expected) :] == 0).all()


def test_rows_of_another_shape_are_refused(config: ConfigDict, pairs: list) -> None:
    config.target_length = None
    prepare(config)
    assert loader.load(config, split='train').num_batches
    config.target_length = 64  # what None meant
    assert prepare(config).was_finished
    assert loader.load(config, split='train').num_batches
    for act in (prepare, lambda config: loader.load(config, split='train')):
        config.target_length = 32
        with pytest.raises(UserError, match='target_length was 64 and is now 32'):
            act(config)
        config.target_length, config.data.target_field = 64, ''
        with pytest.raises(UserError, match=r"data\.target_field was 'answer' and is now ''"):
            act(config)
        config.data.target_field = 'answer'


def test_plain_text_may_have_any_target_length(config: ConfigDict) -> None:
    before = prepare(config).manifest
    config.target_length = 7
    assert prepare(config).was_finished
    assert before['target_length'] == before['config']['target_length'] == 0
    assert next(iter(loader.load(config, split='eval').batches(np.zeros((8, 1), int))))[0].shape == (8, 33)


def test_the_tokenizer_learns_from_both_texts(config: ConfigDict, tmp_path: Path) -> None:
    write_pairs(tmp_path / 'two.jsonl', [('aaaa bbbb', '语言模型')] * 50)
    config.data.source, config.data.target_field = str(tmp_path / 'two.jsonl'), 'answer'
    config.data.eval_fraction, config.tokenizer.vocab_size = 0.0, 275
    encoder = prepare(config).tokenizer
    assert len(encoder.encode('语言模型')) <= 4
    assert len(encoder.encode('aaaa')) <= 2


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            '{"text": "a", "answr": "b"}',
            r"no field 'answer'.*Did you mean 'answr'.*--config\.data\.target_field",
        ),
        ('{"answer": "a"}', r"no field 'text'.*--config\.data\.text_field"),
        ('{"text": "a", "answer": null}', r"no string in field 'answer'.*--config\.data\.target_field=NAME"),
        ('{"text": "a", "answer": "\\ud800"}', 'surrogate'),
        ('["a"]', r'Expected \{"text": "…", "answer": "…"\}'),
    ],
)
def test_lines_without_both_texts_are_refused(
    config: ConfigDict, pairs: list, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / 'pairs.jsonl').write_text(line)
    with pytest.raises(UserError, match=message):
        prepare(config)


def test_pairs_need_two_fields_and_shards(config: ConfigDict, pairs: list, tmp_path: Path) -> None:
    config.data.source = str(tmp_path / 'corpus.txt')
    with pytest.raises(UserError, match=r"corpus\.txt has no fields, so none is data\.target_field='answer'"):
        prepare(config)
    config.data.text_field = 'answer'
    with pytest.raises(UserError, match=r'is data\.text_field too'):
        experiment.check(config)
    config.data.text_field, config.data.mode = 'text', 'stream'
    for act in (experiment.check, prepare):
        with pytest.raises(UserError, match=r"data\.mode='stream' cannot read\. Use data\.mode='shards'"):
            act(config)
    assert not list((tmp_path / 'prepared').iterdir())
    config.data.mode, config.target_length = 'shards', 0
    with pytest.raises(UserError, match='target_length=0 is too small'):
        experiment.check(config)


def test_docstrings_are_prepared_as_pairs(config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [(f'm.py:{n}', f'body {n} ' * 3, f'line {n}') for n in range(30)]
    monkeypatch.setitem(sources.BUILTINS, 'builtin:docstring-pairs', ('few.jsonl', lambda: iter(few)))
    config.data.source, config.data.target_field = 'builtin:docstring-pairs', 'summary'
    config.tokenizer.vocab_size, config.sequence_length = 285, 64
    result = prepare(config).manifest
    assert result['train']['documents'] + result['eval']['documents'] == 30
    assert prepare(config).was_finished
