"""Cleaned parts of the source, on disk until they are tokenised.

DIR/parts/000000.clean.zst     a line of JSON for each document that is kept: [id, text, target]
DIR/parts/000000.removed.jsonl a line for each that is not: {id, step, reason, detail}
DIR/parts/000000.keys, .documents, .ends, .sketches, .ids: what duplicates are found by (data/duplicates.py)
DIR/parts/000000.clean.json    what was counted; written last: its presence says that the part is finished
DIR/parts/duplicates           which of all documents are dropped as duplicates
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard
from ml_collections import ConfigDict

from configs import cleaning
from data import duplicates, manifest, mirror
from data.cleaning.tally import Tally
from data.compression import read_blocks
from data.documents import Document
from data.permutation import permute
from data.reading import read_clean
from data.sources import Split, is_held_out

LEVEL = 1  # of compression: written once and read twice
SAMPLE_FROM = 4  # a tokenizer's sample is spread over parts with this many times as much text


def name_of(number: int, kind: str) -> str:
    """Returns the name of a file of one part, below the directory."""
    return f'{mirror.PARTS}/{number:06d}.{kind}'


def path_of(directory: Path, number: int, kind: str) -> Path:
    """Returns the file of one part."""
    return directory / name_of(number, kind)


def clean_part(number: int, part: Split, config: ConfigDict) -> dict:
    """Cleans one part and writes it down; returns {'tally': …, and of what is kept 'documents', 'bytes'}."""
    directory = mirror.join(config.data.path, part.path)
    (directory / 'parts').mkdir(exist_ok=True)
    settings = cleaning.resolve(config)
    tally, removed = Tally(), []
    sketches = duplicates.Sketches(settings.get('similarity'))
    documents = size = 0
    with open(path_of(directory, number, 'clean.zst'), 'wb') as file:
        with zstandard.ZstdCompressor(LEVEL).stream_writer(file, closefd=False) as packed:
            for document in read_clean(part, config, tally, removed.append):
                line = json.dumps([document.id, document.text, document.target], ensure_ascii=False)
                packed.write(line.encode() + b'\n')
                documents += 1
                size += document.size()
                if 'duplicates' in settings:
                    sketches.add(document)
        file.flush()
        os.fsync(file.fileno())
    if 'duplicates' in settings:
        sketches.write(directory / 'parts', number)
    lines = (
        json.dumps(each, ensure_ascii=False).encode('utf-8', 'backslashreplace') + b'\n' for each in removed
    )
    path_of(directory, number, 'removed.jsonl').write_bytes(b''.join(lines))
    counts = {'tally': tally.to_json(), 'documents': documents, 'bytes': size}
    manifest.write(path_of(directory, number, 'clean.json'), {'format': manifest.FORMAT, **counts})
    mirror.publish(config.data.path, _names(number, config))
    return counts


def read(directory: Path, number: int) -> Iterator[Document]:
    """Yields the documents of a cleaned part that are kept, without those that others make superfluous."""
    found = duplicates.load(directory / 'parts')
    mine = [] if found is None else duplicates.of_part(found, number)['document'].tolist()
    dropped = {document & 0xFFFFFFFF for document in mine}
    for at, line in enumerate(_lines(path_of(directory, number, 'clean.zst'))):
        if at not in dropped:
            yield Document(*json.loads(line))


def join(number: int, part: Split, config: ConfigDict) -> Path:
    """Returns the directory on this machine for a worker that reads a part, wherever that was cleaned."""
    path, settings = config.data.path, cleaning.resolve(config)
    directory = mirror.join(path, part.path)
    if settings and config.data.mode == 'shards':
        found = f'{mirror.PARTS}/{duplicates.FOUND}'
        for names in (_names(number, config), [found] if 'duplicates' in settings else []):
            if names and not (directory / names[-1]).exists():
                mirror.bring(path, names)
    return directory


def _names(number: int, config: ConfigDict) -> list[str]:
    """Returns the names of a cleaned part's files, the one that says that it is finished last."""
    found_by = duplicates.KINDS if 'duplicates' in cleaning.resolve(config) else ()
    return [name_of(number, kind) for kind in ('clean.zst', 'removed.jsonl', *found_by, 'clean.json')]


def documents(number: int, part: Split, config: ConfigDict) -> Iterator[Document]:
    """Yields the documents of a part as they are learnt: what was cleaned before, or the source's own."""
    written = cleaning.resolve(config) and config.data.mode == 'shards'
    directory = join(number, part, config)
    return read(directory, number) if written else read_clean(part, config)


def _lines(path: Path) -> Iterator[bytes]:
    rest = b''
    for block in read_blocks(str(path)):
        *lines, rest = (rest + block).split(b'\n')
        yield from lines


def sample(directory: Path, sizes: list[int], config: ConfigDict) -> Iterator[str]:
    """Yields about tokenizer.sample_bytes of clean training documents, always the same, from many parts.

    sizes: bytes of each part.
    """
    wanted = config.tokenizer.sample_bytes
    order = permute(np.arange(len(sizes)), len(sizes), ('sample',)) if sizes else []
    enough = np.cumsum([sizes[number] for number in order]) >= SAMPLE_FROM * wanted
    chosen = sorted(order[: int(np.argmax(enough)) + 1 if enough.any() else len(sizes)])
    every = max(1, sum(sizes[number] for number in chosen) // wanted)
    left, count = 2 * wanted, 0
    for number in chosen:
        for document in read(directory, int(number)):
            if is_held_out(document.text, config.data.eval_fraction):
                continue
            if count % every == 0:
                yield '\n'.join(filter(None, (document.text, document.target)))[:left]
                left -= document.size()
                if left <= 0:
                    return
            count += 1
