"""Planted cases: what cleaning finds of what is known to be there, and leaves of what only looks alike.

  python -m benchmarks.planted

Near duplicates at known similarity: pairs of random texts that share as many runs of five words as the
similarity says. Personal data: random numbers with right checksums in sentences, and look-alikes with
wrong ones. Evaluation passages: 13 words in a row, and 12. Damaged files: twenty kinds.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import zstandard
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from configs import base
from configs.errors import UserError
from data import duplicates, sources
from data.cleaning import contamination, personal
from data.cleaning.steps import Dropped
from data.documents import Document

PAIRS = 1000
WORDS = 300  # of a document that is to have a near duplicate
ITEMS = 500  # of each kind of personal data, and of look-alikes
PASSAGES = 200
SENTENCES = ('She gave it as {} on the form.', '请记下：{}，谢谢。', 'old ({}) and new', '号码是{}。', '{}')


def near_duplicates(similarity: float) -> Table:
    """Returns recall and precision of PAIRS planted pairs at each similarity, one threshold."""
    rng = random.Random(0)
    table = Table(
        'similarity planted', 'pairs', 'found', 'expected', title=f'near duplicates, threshold {similarity}'
    )
    for planted in (0.5, 0.6, 0.7, 0.75, 0.79, 0.81, 0.85, 0.9, 0.95, 0.99):
        texts, similarities = [], []
        for number in range(PAIRS):
            first, second, truth = _pair(rng, planted, number)
            texts += [first, second]
            similarities.append(truth)
        found = _found(texts, similarity)
        right = {pair for pair, truth in enumerate(similarities) if truth >= similarity}
        mine = {document // 2 for document, kept in found if document // 2 == kept // 2}
        assert len(mine) == len(found)  # no document of another pair
        table.add_row(
            f'{np.mean(similarities):.3f}', f'{PAIRS:,}', f'{len(mine):,}', f'{len(right):,}'
            if mine == right else f'{len(right):,} ({len(right - mine)} missed, {len(mine - right)} too many)'
        )  # fmt: skip
    return table


def _pair(rng: random.Random, similarity: float, number: int) -> tuple[str, str, float]:
    """Returns two texts and the similarity of their sets of five words in a row.

    Replacing the last words of a text of n words with m others leaves n - 4 - m of n - 4 runs common.
    """
    first = [f'w{rng.randrange(1 << 20)}' for _ in range(WORDS)]
    runs = WORDS - 4
    common = round(2 * runs * similarity / (1 + similarity))
    second = first[: common + 4] + [f'v{number}x{at}' for at in range(runs - common)]
    return ' '.join(first), ' '.join(second), common / (2 * runs - common)


def _found(texts: list[str], similarity: float) -> list[tuple[int, int]]:
    with tempfile.TemporaryDirectory() as name:
        sketches = duplicates.Sketches(similarity)
        for number, text in enumerate(texts):
            sketches.add(Document(str(number), text))
        sketches.write(Path(name), 0)
        return [(each, kept) for each, kept, _ in duplicates.find(Path(name), 1, similarity).tolist()]


def _digits(rng: random.Random, count: int) -> str:
    return ''.join(rng.choice('0123456789') for _ in range(count))


def _with_luhn(body: str) -> str:
    return next(body + check for check in '0123456789' if personal.luhn(body + check))


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice([('4', 16), ('51', 16), ('37', 15), ('6011', 16), ('62', 16), ('3530', 16)])
    number = _with_luhn(prefix + _digits(rng, length - 1 - len(prefix)))
    return ' '.join([number[at : at + 4] for at in range(0, 16, 4)]) if rng.random() < 0.3 else number


def _china_id(rng: random.Random) -> str:
    birth = f'{rng.randint(1940, 2010)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}'
    body = f'{rng.choice(sorted(personal.PROVINCES))}{_digits(rng, 4)}{birth}{_digits(rng, 3)}'
    return next(body + check for check in '0123456789X' if personal.is_china_id(body + check))


def _ssn(rng: random.Random) -> str:
    area = rng.choice([*range(1, 666), *range(667, 900)])
    return f'{area:03}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}'


def _email(rng: random.Random) -> str:
    name = rng.choice(['jane.doe', 'li_wei', 'x', 'a+b', 'info']) + str(rng.randrange(1000))
    domain = rng.choice(['qq.com', 'uni-x.edu', 'firm.co.uk', 'a.org', '163.com'])
    return f'{name}@{rng.choice(["mail.", ""])}{domain}'


def _address(rng: random.Random) -> str:
    first = rng.choice([8, 52, 93, 114, 203])
    return f'{first}.{rng.randint(114, 254)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}'


def _phone(rng: random.Random) -> str:
    chinese = f'{rng.choice([138, 139, 150, 186, 199])}{_digits(rng, 8)}'
    american = f'{rng.choice([212, 415, 617])}{rng.choice("-. ")}{rng.randint(220, 999)}'
    return rng.choice(
        [
            chinese,
            f'+86 {chinese}',
            f'({american[:3]}) 736-{_digits(rng, 4)}',
            f'{american[:3]}-736-{_digits(rng, 4)}',
            f'+44 20 7946 {_digits(rng, 4)}',
            f'010-6275{_digits(rng, 4)}',
        ]
    )


def _secret(rng: random.Random) -> str:
    letters = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
    text = lambda count: ''.join(rng.choice(letters) for _ in range(count))  # noqa: E731
    return rng.choice([f'AKIA{text(16).upper()}', f'ghp_{text(36)}', f'hf_{text(34)}', f'AIza{text(35)}'])


def _changed_digit(make: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    """Returns what makes numbers whose last digit is wrong."""

    def wrong(rng: random.Random) -> str:
        right = make(rng)
        return right[:-1] + str((int(right[-1].replace('X', '0')) + rng.randint(1, 9)) % 10)

    return wrong


def _like(*forms: str) -> Callable[[random.Random], str]:
    """Returns what fills one of some forms: {d} four digits, {n} a number below 256, {m} a month."""

    def make(rng: random.Random) -> str:
        return rng.choice(forms).format(d=_digits(rng, 4), n=rng.randrange(256), m=f'{rng.randint(1, 12):02}')

    return make


KINDS: dict[str, tuple[Callable, Callable]] = {  # kind: what makes items, and look-alikes
    'emails': (_email, _like('@user{d}', 'user{n}@localhost', 'x@w{n}.weight', 'git@host{n}.com:a/b')),
    'card_numbers': (_card, _changed_digit(_card)),
    'china_ids': (_china_id, _changed_digit(_china_id)),
    'us_ssns': (_ssn, _like('000-12-{d}', '666-12-{d}', '900-12-{d}', '123-00-{d}', '123-45-0000')),
    'ip_addresses': (
        _address,
        _like('version 2.{n}.0.1', '192.168.1.{n}', '10.0.{n}.1', '8.8.{n}', '1.2.3.4.{n}'),
    ),
    'phones': (
        _phone,
        _like('2024-{m}-12 10:{m}', '138{d}', '123-456-{d}', '978-7-111-{d}-6', '0.13812{d}67'),
    ),
    'secrets': (
        _secret,
        _like('AKIA{d}', 'ghp_{d}', 'sk-learn-{d}', 'hf_hub_{d}', 'password = "secret word"'),
    ),
}


def personal_data() -> Table:
    """Returns how many planted items were replaced, and how many look-alikes stayed."""
    table = Table('kind', 'planted', 'replaced', 'look-alikes', 'stayed', title='personal data')
    for kind, makers in KINDS.items():
        rng, counts = random.Random(kind), []
        for make, item in zip(makers, (True, False), strict=True):
            count = 0
            for _ in range(ITEMS):
                what, sentence = make(rng), rng.choice(SENTENCES)
                expected = sentence.format(personal.KINDS[kind].placeholder if item else what)
                count += personal.KINDS[kind].apply(sentence.format(what)) == expected
            counts.append(count)
        table.add_row(kind, str(ITEMS), str(counts[0]), str(ITEMS), str(counts[1]))
    return table


def passages() -> Table:
    """Returns how many documents with long enough passages of an exam were dropped, and how many others."""
    rng = random.Random(0)
    vocabulary = [f'word{number}' for number in range(3000)]
    characters = [chr(code) for code in range(0x4E00, 0x6000)]
    table = Table('documents with', 'planted', 'dropped', title='evaluation passages')
    with tempfile.TemporaryDirectory() as name:
        exam = Path(name) / 'exam.jsonl'
        for language, make, n in (
            ('English', lambda count: rng.choices(vocabulary, k=count), 13),
            ('Chinese', lambda count: rng.choices(characters, k=count), 26),
        ):
            join = ' '.join if language == 'English' else ''.join
            questions = [make(60) for _ in range(PASSAGES)]
            exam.write_text('\n'.join(json.dumps({'question': join(question)}) for question in questions))
            contamination._index.cache_clear()
            for length in (n, n - 1):
                dropped = 0
                for question in questions:
                    start = rng.randrange(60 - length)
                    text = [*make(rng.randint(20, 200)), *question[start : start + length], *make(50)]
                    dropped += isinstance(contamination.hold_no_passage(str(exam), 13, join(text)), Dropped)
                unit = 'words' if language == 'English' else 'characters'
                table.add_row(f'{length} {unit} of it, {language}', str(PASSAGES), str(dropped))
    return table


def damaged_files() -> Table:
    """Returns how damaged files are refused, and what --skip_damaged reads of them."""
    table = Table('file', 'refused with', 'documents left', 'counted', title='damaged files')
    with tempfile.TemporaryDirectory() as name:
        for file, content in _damaged(Path(name)).items():
            path = Path(name) / file
            path.write_bytes(content)
            config = base.get_config()
            config.data.source = str(path)
            try:
                refused = f'nothing: {len(_read(config, []))} documents'
            except UserError as error:
                refused = str(error).replace(f'{name}/', '')[:60] + '…'
            config.data.skip_damaged = True
            damages: list = []
            left = len(_read(config, damages))
            table.add_row(file, refused, str(left), str(len(damages)))
    return table


def _read(config, damages: list) -> list[str]:
    splits = sources.list_splits(sources.find_files(config), config)
    return [
        document.text for split in splits for document in sources.read_split(split, config, damages.append)
    ]


def _damaged(directory: Path) -> dict[str, bytes]:
    rng = random.Random(0)
    texts = [f'Document {number} ' + ' '.join(_digits(rng, 9) for _ in range(60)) for number in range(200)]
    lines = ''.join(json.dumps({'text': text}) + '\n' for text in texts).encode()
    rows = ('text,n\n' + ''.join(f'"{text}",1\n' for text in texts)).encode()
    plain = '\n\n'.join(texts).encode()
    parquet.write_table(
        pyarrow.table({'text': texts}), directory / 'p', row_group_size=50, use_dictionary=False
    )
    columns = (directory / 'p').read_bytes()
    with pyarrow.ipc.new_stream(directory / 'a', pyarrow.schema([('text', pyarrow.string())])) as writer:
        writer.write_table(pyarrow.table({'text': texts}), max_chunksize=50)
    arrow = (directory / 'a').read_bytes()
    page = b'<html><body><main><p>' + texts[0].encode() + b'</p></main></body></html>'
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n' + page
    record = b'WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n'
    record += (
        b'WARC-Record-ID: <urn:x>\r\nWARC-Target-URI: http://x/\r\nContent-Length: %d\r\n\r\n' % len(answer)
        + answer
        + b'\r\n\r\n'
    )
    flipped = bytearray(gzip.compress(lines))
    flipped[len(flipped) // 2] ^= 0xFF
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    wrong = bytearray(packed)
    wrong[len(wrong) // 2] ^= 0xFF
    page_at = parquet.ParquetFile(directory / 'p').metadata.row_group(2).column(0).data_page_offset
    return {
        'empty.txt': b'',
        'latin1.txt': plain.replace(b'Document 7 ', 'Dokument ä 7 '.encode('latin-1')),
        'cut.txt.gz': gzip.compress(plain)[:-2000],
        'cut.txt.zst': zstandard.compress(plain)[:-2000],
        'cut.jsonl': lines[:-300],
        'cut.jsonl.gz': gzip.compress(lines)[: len(lines) // 8],
        'cut.jsonl.zst': packed[:-3],
        'flipped.jsonl.gz': bytes(flipped),
        'flipped.jsonl.zst': bytes(wrong),
        'not-gzip.jsonl.gz': lines,
        'not-json.jsonl': lines.replace(b'{"text": "Document 9 ', b'{text: "Document 9 '),
        'no-field.jsonl': lines.replace(b'"text": "Document 11 ', b'"txt": "Document 11 '),
        'number.jsonl': lines + b'{"text": 3}\n',
        'half-pair.jsonl': lines + b'{"text": "\\ud800"}\n',
        'open-quote.csv': rows[:-4],
        'short-row.csv': rows.replace(b'",1\n', b'"\n', 1),
        'cut.parquet': columns[:-100],
        'zeros.parquet': columns[:page_at] + bytes(400) + columns[page_at + 400 :],
        'cut.arrow': arrow[: len(arrow) - 3000],
        'cut.warc': record * 3 + record[:-40],
    }


def main() -> None:
    """Prints all tables."""
    console = Console(width=120)
    for table in (near_duplicates(0.8), personal_data(), passages(), damaged_files()):
        console.print(table)


if __name__ == '__main__':
    main()
