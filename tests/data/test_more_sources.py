"""Tables, columns, pages, datasets and URLs; tests/data/test_sources.py has text and JSON lines."""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from pyarrow import parquet

from configs import base
from configs.errors import UserError
from data import hub, pages, sources
from data.damage import Damage
from data.preparation import prepare
from tests.data.cleaning.test_quality import CHINESE, PROSE

TEXTS = [f'{number}: "{PROSE[:number]}",\n{CHINESE[number:40]}' for number in range(1, 31)]


@pytest.fixture
def reading(tmp_path: Path) -> ConfigDict:
    config = base.get_config()
    config.data.path = str(tmp_path / 'prepared')
    return config


def read(config: ConfigDict, source: object, *, parts: int = 1, count: list | None = None) -> list[str]:
    """Returns the texts of all splits of a source; their ids must all be different."""
    config.data.source = str(source)
    found = [
        document
        for split in sources.list_splits(sources.find_files(config), config, split_bytes=100, parts=parts)
        for document in sources.read_split(split, config, None if count is None else count.append)
    ]
    assert len({document.id for document in found}) == len(found)
    return [document.text for document in found]


def write_table(path: Path, texts: list[str], delimiter: str = ',') -> bytes:
    with io.StringIO(newline='') as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(['id', 'text'])
        writer.writerows(enumerate(texts))
        content = file.getvalue().encode()
    path.write_bytes(content)
    return content


@pytest.mark.parametrize('parts', [1, 3])
@pytest.mark.parametrize(('ending', 'delimiter'), [('.csv', ','), ('.tsv', '\t')])
def test_rows_of_tables_are_what_the_csv_module_wrote(reading, tmp_path, ending, delimiter, parts):
    content = write_table(tmp_path / f'a{ending}', TEXTS, delimiter)
    (tmp_path / f'b{ending}.gz').write_bytes(gzip.compress(content))
    (tmp_path / f'c{ending}.zst').write_bytes(
        zstandard.compress(b'\xef\xbb\xbf' + content.replace(b'id', b'nr', 1))
    )
    for name in 'abc':
        assert sorted(read(reading, tmp_path / f'{name}*', parts=parts)) == sorted(TEXTS)


def test_broken_rows_are_named_by_their_byte_or_left_out(reading, tmp_path):
    good = b'id,text\r\n1,"one, two"\r\n'
    (tmp_path / 'a.csv').write_bytes(good + b'2\r\n3,three\r\n4,"fo"ur"\r\n5,\xff\xfe\r\n6,"six')
    with pytest.raises(Damage, match=f'row at byte {len(good)} has 1 fields, but there are 2 columns'):
        read(reading, tmp_path / 'a.csv')
    reading.data.skip_damaged = True
    damages: list = []
    assert read(reading, tmp_path / 'a.csv', count=damages) == ['one, two', 'three']
    assert len(damages) == 4
    reading.data.cleaning.invalid_utf8 = True
    assert read(reading, tmp_path / 'a.csv', count=damages) == ['one, two', 'three', '\udcff\udcfe']


@pytest.mark.parametrize('parts', [1, 2, 7])
def test_row_groups_are_read_one_at_a_time_and_only_needed_columns(reading, tmp_path, parts):
    table = pyarrow.table(
        {'text': TEXTS, 'other': [{'deep': text} for text in TEXTS], 'n': range(len(TEXTS))}
    )
    parquet.write_table(table, tmp_path / 'a.parquet', row_group_size=8)
    assert sorted(read(reading, tmp_path / 'a.parquet', parts=parts)) == sorted(TEXTS)
    reading.data.text_field = 'other.deep'
    assert sorted(read(reading, tmp_path / 'a.parquet', parts=parts)) == sorted(TEXTS)
    reading.data.text_field = 'txet'
    with pytest.raises(
        UserError, match=r"no field 'txet'; its fields: 'text', 'other', 'n'\. Did you mean 'text'"
    ):
        read(reading, tmp_path / 'a.parquet')


def test_damaged_parquet_is_named_by_its_row_group_or_left_out(reading, tmp_path):
    parquet.write_table(
        pyarrow.table({'text': TEXTS}), tmp_path / 'a.parquet', row_group_size=10, compression='zstd'
    )
    content = bytearray((tmp_path / 'a.parquet').read_bytes())
    start = parquet.ParquetFile(tmp_path / 'a.parquet').metadata.row_group(1).column(0).dictionary_page_offset
    content[start : start + 60] = bytes(60)
    (tmp_path / 'b.parquet').write_bytes(content)
    (tmp_path / 'c.parquet').write_bytes(content[:-30])
    with pytest.raises(Damage, match='row group 1 cannot be read behind row 10'):
        read(reading, tmp_path / 'b.parquet')
    with pytest.raises(Damage, match=f'at the end of its {len(content) - 30} bytes'):
        read(reading, tmp_path / 'c.parquet')
    reading.data.skip_damaged = True
    damages: list = []
    assert read(reading, tmp_path / 'b.parquet', parts=3, count=damages) == [*TEXTS[:10], *TEXTS[20:]]
    assert read(reading, tmp_path / 'c.parquet', parts=3, count=damages) == []
    assert len(damages) == 2


def test_fields_may_be_alternatives_and_templates(reading, tmp_path):
    lines = [{'title': 'T', 'body': {'main': 'B'}}, {'content': 'C', 'title': 'U', 'body': {'main': 'D'}}]
    (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    reading.data.text_field = '{title}\\n\\n{body.main}'
    assert read(reading, tmp_path / 'a.jsonl') == ['T\n\nB', 'U\n\nD']
    reading.data.text_field = 'text|content|title'
    assert read(reading, tmp_path / 'a.jsonl') == ['T', 'C']
    reading.data.text_field, reading.data.target_field = 'Title: {title}', 'body.main'
    config = reading
    found = [
        d
        for s in sources.list_splits(sources.find_files(config), config)
        for d in sources.read_split(s, config)
    ]
    assert [(document.text, document.target) for document in found] == [('Title: T', 'B'), ('Title: U', 'D')]


PAGE = f"""<html><head><title>Title</title><meta charset="{{}}"></head><body><nav><a href="/">Home</a></nav>
<main><article><h1>Heading</h1><p>{PROSE}</p><p>{CHINESE}</p></article></main>
<footer>© Imprint</footer></body></html>"""


@pytest.mark.parametrize('encoding', ['utf-8', 'gb18030'])
def test_main_text_of_pages_is_read_in_any_encoding(reading, tmp_path, encoding):
    (tmp_path / 'a.html').write_bytes(PAGE.format(encoding).encode(encoding, 'replace'))
    (text,) = read(reading, tmp_path / 'a.html')
    assert PROSE in text
    assert CHINESE in text
    assert 'Home' not in text
    assert 'Imprint' not in text


def archive_record(
    url: str, body: bytes, kind: str = 'text/html; charset=utf-8', status: str = '200 OK'
) -> bytes:
    """A WARC record, written by the standard's grammar."""
    answer = (
        f'HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n'.encode() + body
    )
    head = (
        f'WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{len(body)}>\r\n'
        f'WARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: application/http\r\n'
        f'Content-Length: {len(answer)}\r\n\r\n'
    )
    return head.encode() + answer + b'\r\n\r\n'


@pytest.mark.parametrize('parts', [1, 2])
def test_pages_in_archives_are_read_and_other_answers_are_not(reading, tmp_path, parts):
    records = [
        archive_record('http://a/', PAGE.format('utf-8').encode()),
        archive_record('http://a/x.png', b'\x89PNG', 'image/png'),
        archive_record('http://a/gone', b'<p>gone</p>', status='404 Not Found'),
        archive_record(
            'http://b/', PAGE.format('').encode('gb18030', 'replace'), 'text/html; charset=gb18030'
        ),
        archive_record('http://c/', b'<p>Third page.</p>', 'text/html; charset=made-up'),
    ]
    (tmp_path / 'a.warc').write_bytes(b''.join(records))
    (tmp_path / 'a.warc.gz').write_bytes(b''.join(map(gzip.compress, records)))
    for name in ('a.warc', 'a.warc.gz'):
        texts = read(reading, tmp_path / name, parts=parts)
        assert len(texts) == 3
        assert sum(CHINESE in text for text in texts) == 2
        assert 'Third page.' in texts
    (tmp_path / 'e.warc').write_bytes(b''.join(records)[:-14])
    (tmp_path / 'c.warc.gz').write_bytes((tmp_path / 'a.warc.gz').read_bytes()[:-40])
    (tmp_path / 'd.warc').write_bytes(b'no archive at all\r\n\r\n')
    start = len(b''.join(records[:4]))
    before = len(b''.join(records[:3]))
    (tmp_path / 'b.warc').write_bytes(b''.join(records)[: start + 5])  # the first line of a head
    (tmp_path / 'f.warc').write_bytes(b''.join(records)[:-200])  # later in a head
    for name, problem in (
        ('b.warc', f'behind byte {before}'),
        ('f.warc', f'behind byte {start}'),
        ('e.warc', f'record at byte {start} lacks 10 bytes'),
        ('c.warc.gz', 'decompression fails'),
        ('d.warc', 'no WARC'),
    ):
        reading.data.skip_damaged = False
        with pytest.raises(Damage, match=problem):
            read(reading, tmp_path / name, parts=parts)
        reading.data.skip_damaged = True
        damages: list = []
        assert len(read(reading, tmp_path / name, parts=parts, count=damages)) == (
            0 if name == 'd.warc' else 2
        )
        assert len(damages) == 1


def test_datasets_saved_on_this_machine_are_read_by_their_split(reading, tmp_path):
    for split in ('train', 'test'):
        directory = tmp_path / 'saved' / split
        directory.mkdir(parents=True)
        table = pyarrow.table({'text': [f'{split} {text}' for text in TEXTS]})
        with pyarrow.ipc.new_stream(directory / 'data-00000-of-00001.arrow', table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        (directory / 'state.json').write_text(
            json.dumps({'_data_files': [{'filename': 'data-00000-of-00001.arrow'}]})
        )
    (tmp_path / 'saved' / 'dataset_dict.json').write_text(json.dumps({'splits': ['test', 'train']}))
    expected = [f'train {text}' for text in TEXTS]
    for parts in (1, 3):
        assert sorted(read(reading, f'hf:{tmp_path}/saved', parts=parts)) == sorted(expected)
    file = tmp_path / 'saved' / 'train' / 'data-00000-of-00001.arrow'
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(Damage, match='behind row'):
        read(reading, f'hf:{tmp_path}/saved')

    data = tmp_path / 'plain' / 'data'
    data.mkdir(parents=True)
    for split in ('train', 'validation'):
        write_table(data / f'{split}-00000.csv', [split])
    assert read(reading, f'hf:{tmp_path}/plain') == ['train']
    assert hub.data_files(f'hf:{data}', ('.csv',)) == [str(data / 'train-00000.csv')]
    with pytest.raises(UserError, match='no file of that dataset ends in'):
        hub.data_files(f'hf:{data}', ('.parquet',))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Also answers requests for a range of bytes, as servers of data do."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('Range', ''))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            return super().do_GET()
        content = path.read_bytes()
        start, end = int(asked[1]), min(int(asked[2]), len(content) - 1)
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {start}-{end}/{len(content)}')
        self.send_header('Content-Length', str(end - start + 1))
        self.end_headers()
        self.wfile.write(content[start : end + 1])
        return None


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serves a directory over HTTP at the address it yields."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()
        thread.join()


def test_urls_are_followed_as_files_are_read(reading, tmp_path):
    pytest.importorskip('aiohttp')
    (tmp_path / 'a.jsonl').write_text('\n'.join(json.dumps({'text': text}) for text in TEXTS))
    (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress((tmp_path / 'a.jsonl').read_bytes()))
    parquet.write_table(pyarrow.table({'text': TEXTS}), tmp_path / 'a.parquet')
    with served(tmp_path) as address:
        for name in ('a.jsonl', 'a.jsonl.gz', 'a.parquet'):
            assert read(reading, f'{address}/{name}') == TEXTS
        assert sources.describe([f'{address}/a.jsonl'])['bytes'] == (tmp_path / 'a.jsonl').stat().st_size
        with pytest.raises(UserError, match='there is no such file'):
            read(reading, f'{address}/b.jsonl')
    with pytest.raises(UserError, match='cannot be followed'):
        read(reading, 'nothing://a.jsonl')


def test_a_preparation_of_urls_is_that_of_the_files(config, tmp_path):
    content = (tmp_path / 'corpus.txt').read_bytes()
    prepare(config)
    first = [path.read_bytes() for path in sorted((tmp_path / 'prepared' / 'train').glob('*.bin'))]
    from fsspec.implementations.memory import MemoryFileSystem

    with MemoryFileSystem().open('/corpus/corpus.txt', 'wb') as file:
        file.write(content)
    config.data.source, config.data.path = 'memory://corpus/*.txt', str(tmp_path / 'remote')
    result = prepare(config)
    assert [path.read_bytes() for path in sorted((tmp_path / 'remote' / 'train').glob('*.bin'))] == first
    assert result.manifest['inputs'][0]['path'] == 'memory:///corpus/corpus.txt'


DAMAGED = {  # name: (content, documents that can still be read)
    'empty.txt': (b'', 0),
    'cut.txt.gz': (gzip.compress('\n\n'.join(TEXTS * 50).encode())[:-20], None),
    'cut.jsonl.zst': (
        zstandard.compress(b'\n'.join(b'{"text": "%d"}' % n for n in range(9))).removesuffix(b'}')[:-3],
        0,
    ),
    'half.jsonl': (b'{"text": "one"}\n{"text": "tw\n{"text": "three"}', 2),
    'other.jsonl': (b'{"text": "one"}\n[1]\n{"text": 3}\n{"txt": "four"}\n', 1),
    'latin.txt': ('one\n\nä\n\nthree'.encode('latin-1'), 2),
    'quote.csv': (b'text\n"one\n', 0),
    'short.csv': (b'a,text\n1\n2,two\n', 1),
    'junk.parquet': (b'PAR1 junk PAR1', 0),
    'junk.arrow': (b'\xff\xff\xff\xffjunk', 0),
    'junk.warc': (b'junk', 0),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_damage_stops_or_is_counted(reading, tmp_path, name):
    content, readable = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read(reading, tmp_path / name)
    reading.data.skip_damaged = True
    damages: list = []
    texts = read(reading, tmp_path / name, count=damages)
    assert readable is None or len(texts) == readable
    assert damages
    assert all(isinstance(damage, Damage) and name in str(damage) for damage in damages)


def test_skipped_damage_is_in_the_report(config, tmp_path):
    for name, (content, _) in DAMAGED.items():
        (tmp_path / name).write_bytes(content)
    config.data.source += f',{tmp_path}/*.*'
    config.data.skip_damaged = True
    prepare(config)
    said = json.loads((tmp_path / 'prepared' / 'report.json').read_text())
    assert said['all']['damaged'] == 13  # other.jsonl has three
    assert len(said['all']['damages']) == 3


COLUMNS = ('.parquet', '.arrow')
MORSELS = b'{"text": "|"}|\n|\n\n|"|,|text|\xff|\x00|<p>|WARC/1.0\r\n|\r\n|\xe4\xb8\xad|PAR1'.split(b'|')


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(['.txt', '.jsonl', '.csv', '.tsv', '.html', '.warc', '.txt.gz', '.jsonl.zst', *COLUMNS]),
    st.one_of(
        st.binary(max_size=400),
        st.lists(st.sampled_from(MORSELS), max_size=30).map(b''.join),
    ),
)
def test_random_bytes_are_read_or_refused_but_crash_nothing(reading, tmp_path, ending, content):
    path = tmp_path / f'fuzz{ending}'
    path.write_bytes(content)
    reading.data.skip_damaged = False
    with contextlib.suppress(UserError):
        read(reading, path, parts=2)
    reading.data.skip_damaged = True
    for parts in (1, 2):
        for text in read(reading, path, parts=parts, count=[]):
            text.encode()
    reading.data.cleaning.invalid_utf8 = True
    read(reading, path, count=[])
    reading.data.cleaning.invalid_utf8 = None


@given(st.binary())
def test_any_bytes_are_a_page(content: bytes):
    pages.main_text(content).encode()
