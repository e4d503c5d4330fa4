from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from pathlib import Path

import pytest
import zstandard
from ml_collections import ConfigDict

from configs.errors import UserError
from data import sources, text
from data.sources import find_files, is_held_out, list_splits, read_split


def read_all(config: ConfigDict, **splitting: int) -> list[tuple[str, str]]:
    splits = list_splits(find_files(config), config, **splitting)
    return [(document.id, document.text) for split in splits for document in read_split(split, config)]


def blocks(content: bytes, start: int, size: int):
    return (content[at : at + size] for at in range(start, len(content), size))


def lines_of(content: bytes) -> list[bytes]:
    return [line.rstrip() for line in content.split(b'\n') if line.strip()]


def paragraphs_of(content: bytes) -> list[bytes]:
    found, current = [], []
    for line in [*content.split(b'\n'), b'']:
        if line.strip():
            current.append(line)
        elif current:
            found.append(b'\n'.join(current).rstrip())
            current = []
    return found


@pytest.mark.parametrize(('kind', 'oracle'), [('line', lines_of), ('paragraph', paragraphs_of)])
def test_every_document_belongs_to_one_split_wherever_the_cuts_are(kind: str, oracle) -> None:
    rng = random.Random(0)
    alphabet = ['a', 'b', 'é', '\n', '\n', '\n\n', ' ', '\t', '\r\n']
    for _ in range(2000):
        content = ''.join(rng.choices(alphabet, k=rng.randrange(60))).encode()
        whole = list(text.documents([content], 0, None, kind))
        assert [document for _, document in whole] == oracle(content)
        assert all(content[at : at + len(document)] == document for at, document in whole)
        cuts = sorted({0, len(content), *(rng.randrange(len(content) + 1) for _ in range(5))})
        size = rng.randrange(1, 9)
        pieces = [
            document
            for start, end in itertools.pairwise(cuts)
            for document in text.documents(blocks(content, start, size), start, end, kind)
        ]
        assert pieces == whole


def test_compressed_and_plain_files_hold_the_same_documents(config: ConfigDict, tmp_path: Path) -> None:
    content = (tmp_path / 'corpus.txt').read_bytes()
    plain = read_all(config)
    assert [document for _, document in plain] == content.decode().rstrip('\n').split('\n\n')
    assert read_all(config, split_bytes=777) == plain
    half = len(content) // 2
    frames = [zstandard.compress(content[:half]), zstandard.compress(content[half:])]
    for name, packed in (('c.txt.gz', gzip.compress(content)), ('c.txt.zst', b''.join(frames))):
        (tmp_path / name).write_bytes(packed)
        config.data.source = str(tmp_path / name)
        assert [document for _, document in read_all(config)] == [document for _, document in plain]
        assert sorted(read_all(config, parts=3)) == sorted(read_all(config))


def test_json_lines_and_whole_files(config: ConfigDict, tmp_path: Path) -> None:
    texts = ['one\n\ntwo', 'drei \u2028 🙂', '']
    rows = [json.dumps({'id': n, 'body': content}) for n, content in enumerate(texts)]
    (tmp_path / 'a.jsonl').write_text('\n'.join(rows))
    config.data.source = str(tmp_path / 'a.jsonl')
    config.data.text_field = 'body'
    assert read_all(config, split_bytes=5) == [
        (f'{tmp_path}/a.jsonl:0', texts[0]),
        (f'{tmp_path}/a.jsonl:{len(rows[0]) + 1}', texts[1]),
    ]
    (tmp_path / 'b.txt').write_text('\ufeffone\n\ntwo\n')
    config.data.source = str(tmp_path / 'b.txt')
    config.data.text_documents = 'file'
    assert read_all(config, split_bytes=5) == [(f'{tmp_path}/b.txt:0', 'one\n\ntwo')]


def test_lists_globs_and_directories_in_a_fixed_order(config: ConfigDict, tmp_path: Path) -> None:
    for name in ('d/z.txt', 'd/sub/b.jsonl', 'd/a.txt', 'd/ignored.md'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{}')
    config.data.source = f'{tmp_path}/d/z.txt, {tmp_path}/d'
    assert [os.path.relpath(path, tmp_path) for path in find_files(config)] == [
        'd/z.txt', 'd/a.txt', 'd/sub/b.jsonl',
    ]  # fmt: skip
    config.data.source = f'{tmp_path}/**/*.txt'
    found = [os.path.relpath(path, tmp_path) for path in find_files(config)]
    assert found == ['corpus.txt', 'd/a.txt', 'd/z.txt']


def test_held_out_documents_are_chosen_by_their_text_alone() -> None:
    texts = [f'document {n}' for n in range(20_000)]
    chosen = {content for content in texts if is_held_out(content, 0.05)}
    assert 850 < len(chosen) < 1150  # 1000 ± 5 standard deviations
    assert chosen < {content for content in texts if is_held_out(content, 0.1)}
    assert [n for n in range(60) if is_held_out(texts[n], 0.05)] == [
        17,
        18,
        20,
        24,
        40,
        44,
        54,
    ]  # must never change
    assert not any(is_held_out(content, 0.0) for content in texts)
    assert all(is_held_out(content, 1.0) for content in texts)


def test_one_enormous_line_is_read_once(config: ConfigDict, tmp_path: Path) -> None:
    (tmp_path / 'line.txt').write_bytes(b'word ' * 1_000_000)
    config.data.source = str(tmp_path / 'line.txt')
    assert [len(content) for _, content in read_all(config, split_bytes=1 << 18)] == [4_999_999]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('x.txt', b'fine\n\nthen \xff', r'x\.txt: byte 11 is 0xff, which is not UTF-8'),
        ('x.txt', random.Random(0).randbytes(5000), r'x\.txt: byte \d+ is 0x.., which is not UTF-8'),
        ('x.txt', b'', r'x\.txt is empty'),
        ('x.txt.gz', gzip.compress(b'text ' * 9000, mtime=0)[:-20], r'x\.txt\.gz is damaged or cut short'),
        ('x.txt.gz', b'plain text', r'x\.txt\.gz is damaged or cut short'),
        ('x.txt.zst', zstandard.compress(random.Random(0).randbytes(9000).hex().encode())[:-20], 'cut short'),
        ('x.txt.zst', b'plain text', r'x\.txt\.zst is damaged or cut short'),
        ('x.jsonl', b'{"text": "a"}\n{"text": \n', r'x\.jsonl: the line at byte 14 is not JSON'),
        ('x.jsonl', b'["a"]\n', r'the line at byte 0 is not a JSON object'),
        (
            'x.jsonl',
            b'{"id": 1, "test": "a"}\n',
            r"no field 'text'; its fields: 'id', 'test'\. Did you mean 'test'",
        ),
        ('x.jsonl', b'{"text": 3}\n', "no string in field 'text'"),
        ('x.jsonl', b'{"text": "a\\ud800"}\n', 'surrogate'),
        ('x.pdf', b'text', 'format is not known'),
    ],
)
def test_what_is_no_text_is_refused_by_name(
    config: ConfigDict, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    config.data.source = str(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_all(config)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('', 'names no text'),
        ('absent.txt', "'absent.txt': there is no such file"),
        ('absent/*.txt', 'no file matches'),
        ('builtin:python', "Did you mean 'builtin:python-docs'"),
    ],
)
def test_sources_that_are_not_there_are_refused(config: ConfigDict, source: str, message: str) -> None:
    config.data.source = source
    with pytest.raises(UserError, match=message):
        find_files(config)


def test_descriptions_follow_contents_and_names_not_places(tmp_path: Path) -> None:
    for directory in ('one', 'two', 'three'):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / 'a.txt').write_text('same' if directory != 'three' else 'else')
    one, two, three = (sources.describe([f'{tmp_path}/{name}/a.txt']) for name in ('one', 'two', 'three'))
    assert one == two != three
