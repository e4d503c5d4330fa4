"""Where text comes from: the files that `data.source` names, cut into splits, read as documents.

A *split* is a piece of the source that can be read on its own. Splits come in an order that
depends only on the files and the config, and every document belongs to exactly one of them,
whatever their sizes. Plain lines and paragraphs are split at byte offsets, Parquet files at row groups;
what cannot be entered in the middle (compressed files, tables of text, web archives) is shared by several
splits, each of which reads all of it and keeps every n-th document.

Another format is one more entry in FORMATS.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from configs import cleaning
from configs.errors import UserError, choose
from configs.experiment import check_pairs
from data import columns, hub, mirror, pages, python_docs, records, storage, tables, text
from data.compression import COMPRESSION_RATIO, COMPRESSIONS, is_compressed, read_blocks
from data.damage import Damage, Report, reporter
from data.documents import Document
from data.files import write_whole

FORMATS = {  # ending: whether it holds records, which have fields
    '.txt': False,
    '.jsonl': True,
    '.csv': True,
    '.tsv': True,
    '.parquet': True,
    '.arrow': True,
    '.html': False,
    '.htm': False,
    '.warc': False,
}
COMPRESS_THEMSELVES = ('.parquet', '.arrow')
DELIMITERS = {'.csv': ',', '.tsv': '\t'}
BUILTINS = {  # name: (file in data.path, what yields an identifier and the texts of each document)
    'builtin:python-docs': ('python-docs.jsonl', python_docs.documents),
    'builtin:docstring-pairs': ('docstring-pairs.jsonl', python_docs.pairs),
}
KNOWN = tuple(
    ending + compression
    for ending in FORMATS
    for compression in (COMPRESSIONS if ending not in COMPRESS_THEMSELVES else ('',))
)
Content = TypeVar('Content')
SPLIT_BYTES = 2 << 20  # small enough to keep many processes busy, large enough to make starting cheap
SAMPLED_BYTES = 1 << 16  # hashed at either end of a file to recognise it


@dataclass(frozen=True)
class Split:
    """The documents of path[start:end] (all for end None) whose number is `part` modulo `parts`.

    start, end: bytes; in Parquet files row groups.
    """

    path: str
    start: int = 0
    end: int | None = None
    part: int = 0
    parts: int = 1
    size: int = 0  # bytes of the file that it stands for, for progress


def file_format(path: str) -> str:
    """Returns the ending of a file's name that says how it is read, a key of FORMATS."""
    return os.path.splitext(path.removesuffix('.gz').removesuffix('.zst'))[1]


def is_splittable(path: str) -> bool:
    """Whether a file can be entered at any byte."""
    return file_format(path) in ('.txt', '.jsonl') and not is_compressed(path)


def text_size(path: str) -> int:
    """Returns about how many bytes of text are in a file."""
    packed = is_compressed(path) or file_format(path) in COMPRESS_THEMSELVES
    return storage.size(path) * (COMPRESSION_RATIO if packed else 1)


def find_files(config: ConfigDict) -> list[str]:
    """Returns the files of data.source, in the order it names them; UserError if there are none.

    An embedded corpus is written into data.path the first time, and is a file like others then.
    """
    return list(dict.fromkeys(path for files in find_sources(config).values() for path in files))


def find_sources(config: ConfigDict) -> dict[str, list[str]]:
    """Returns {name in data.source: its files}."""
    check_pairs(config)
    names = [name.strip() for name in config.data.source.split(',') if name.strip()]
    if not names:
        raise UserError(
            "data.source='' names no text. Give files, directories, globs or "
            + ' or '.join(map(repr, BUILTINS))
            + '.'
        )
    found = {name: expand(name, config) for name in names}
    for path in dict.fromkeys(path for files in found.values() for path in files):
        if storage.size(path) == 0 and not config.data.skip_damaged:
            raise UserError(f'{path} is empty. Remove it, or write it again if a download broke off.')
        if config.data.target_field and not FORMATS[file_format(path)]:
            raise UserError(
                f'{path} has no fields, so none is data.target_field={config.data.target_field!r}. '
                'Write pairs as .jsonl, one JSON object a line, or leave data.target_field empty.'
            )
    return found


def expand(name: str, config: ConfigDict) -> list[str]:
    """Returns the files that a name in data.source stands for; UserError if there are none."""
    if name.startswith('builtin:'):
        return [str(_write_builtin(choose('data.source', name, BUILTINS), config))]
    if name.startswith('hf:'):
        return hub.data_files(name, KNOWN)
    if storage.is_directory(name):
        found = [path for path in storage.files_below(name) if path.endswith(KNOWN)]
        if not found:
            raise UserError(f'data.source={name!r}: no file in that directory ends in {", ".join(KNOWN)}.')
        return found
    found = [name] if storage.is_file(name) else storage.matching(name)
    if not found:
        problem = 'no file matches' if glob.has_magic(name) else 'there is no such file or directory'
        raise UserError(f'data.source={name!r}: {problem} (seen from {os.getcwd()}). Mend the path.')
    for path in found:
        if not path.endswith(KNOWN):
            raise UserError(
                f'{path}: its format is not known. Rename it to end in one of {", ".join(KNOWN)}.'
            )
    return found


def _write_builtin(name: str, config: ConfigDict) -> Path:
    file, documents = BUILTINS[name]
    path = mirror.local(config.data.path) / file
    if not path.exists():
        fields = ('id', config.data.text_field, config.data.target_field or 'target')
        lines = (
            json.dumps(dict(zip(fields, document, strict=False)), ensure_ascii=False)
            for document in documents()
        )
        write_whole(path, '\n'.join(lines).encode('utf-8', 'surrogateescape') + b'\n')
    return path


def list_splits(
    files: list[str], config: ConfigDict, *, split_bytes: int = SPLIT_BYTES, parts: int = 1
) -> list[Split]:
    """Returns the splits of `files`: plain ones every `split_bytes`, each other one in about `parts`."""
    splits = []
    for path in files:
        size = storage.size(path)
        kind = file_format(path)
        if kind == '.parquet':
            splits += _split_row_groups(path, size, parts, config)
        elif (
            size == 0
            or kind in ('.html', '.htm')
            or (kind == '.txt' and config.data.text_documents == 'file')
        ):
            splits.append(Split(path, 0, None, size=size))
        elif is_splittable(path):
            starts = range(0, size, split_bytes)
            splits += [Split(path, at, at + split_bytes, size=min(split_bytes, size - at)) for at in starts]
        else:
            splits += [Split(path, 0, None, part, parts, size // parts) for part in range(parts)]
    return splits


def _split_row_groups(path: str, size: int, parts: int, config: ConfigDict) -> list[Split]:
    try:
        groups = columns.row_groups(path)
    except Damage:
        if not config.data.skip_damaged:
            raise
        return [Split(path, 0, None, size=size)]  # whoever reads it counts the damage
    each = max(1, parts // max(1, len(groups)))
    total = max(1, sum(bytes_ for _, bytes_ in groups))
    return [
        Split(path, group, group + 1, part, each, size * bytes_ // total // each)
        for group, (_, bytes_) in enumerate(groups)
        for part in range(each)
    ]


def read_split(split: Split, config: ConfigDict, count: Report | None = None) -> Iterator[Document]:
    """Yields the documents of `split` in the order of the file; Damage for what is no text.

    With data.skip_damaged it is left out instead, and `count` told. Empty documents are left out, but
    for pairs, of which a packer says why it leaves them out.
    """
    everywhere = reporter(config, count)
    # What is wrong with a file as a whole is found by all that share it, and counted by the first.
    once = everywhere if split.part == 0 or not config.data.skip_damaged else _ignore
    if storage.size(split.path) == 0:
        once(Damage(f'{split.path} is empty.'))
        return
    found, decode = _reader(split, config, once)
    name = shown(split.path, config)
    for offset, content in islice(found, split.part, None, split.parts):
        try:
            texts = decode(offset, content)
        except Damage as damage:
            everywhere(damage)
            continue
        if texts[0] or len(texts) > 1:
            yield Document(f'{name}:{offset}', *texts)


def shown(path: str, config: ConfigDict) -> str:
    """Returns the name of a file in what is written: of an embedded corpus without the directory it is in."""
    ours = os.path.normpath(mirror.local(config.data.path))
    return os.path.basename(path) if os.path.dirname(path) == ours else path


def _ignore(_: Damage) -> None:
    pass


def _reader(
    split: Split, config: ConfigDict, report: Report
) -> tuple[Iterator[tuple[int, Any]], Callable[[int, Any], list[str]]]:
    """Returns (offset, content) of each document in the range of `split`, and what makes texts of them."""
    path, kind = split.path, file_format(split.path)
    fields = records.field_keys(config)
    errors = 'surrogateescape' if cleaning.resolve(config).get('invalid_utf8') else 'strict'
    if kind in COMPRESS_THEMSELVES:
        wanted = [name for specification in fields.values() for name in records.names(specification)]
        if kind == '.parquet':
            rows = columns.parquet_rows(path, split.start, split.end, wanted, report)
        else:
            rows = columns.arrow_rows(path, wanted, report)
        return rows, lambda row, content: records.texts(f'{path}: row {row}', content, fields)
    blocks = WholeBlocks(read_blocks(path, split.start), report)
    if kind in DELIMITERS:
        rows = tables.rows(path, blocks, DELIMITERS[kind], blocks.report)
        return blocks.before_damage(rows), lambda at, row: tables.texts(path, at, row, fields, errors)
    if kind == '.warc':
        return pages.archived(path, read_blocks(path), report), lambda _, content: [content]
    if kind in ('.html', '.htm'):
        page = ((0, pages.main_text(content)) for content in [b''.join(blocks)])
        return blocks.before_damage(page), lambda _, content: [content]
    separator = choose('data.text_documents', config.data.text_documents, text.SEPARATORS)
    if kind == '.jsonl':
        found = text.documents(blocks, split.start, split.end, 'line')
        return blocks.before_damage(found), lambda at, line: text.decode_json(path, at, line, fields, errors)
    found = text.documents(blocks, split.start, split.end, separator)
    return blocks.before_damage(found), lambda at, content: [text.decode(path, at, content, errors)]


class WholeBlocks:
    """The blocks of a file up to where it is damaged, which is told to `report` once; an iterator."""

    def __init__(self, blocks: Iterator[bytes], report: Report):
        self._blocks, self._report = blocks, report
        self._cut = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blocks
        except Damage as damage:
            self._cut = True
            self._report(damage)

    def report(self, damage: Damage) -> None:
        """Tells of damage, unless it is the end that is missing since the file was cut."""
        if not self._cut:
            self._report(damage)

    def before_damage(self, found: Iterable[tuple[int, Content]]) -> Iterator[tuple[int, Content]]:
        """Yields what is found in the blocks, but for the last of a file that was cut: it is not whole."""
        held = None
        for each in found:
            if held is not None:
                yield held
            held = each
        if held is not None and not self._cut:
            yield held


def is_held_out(document: str, fraction: float) -> bool:
    """Whether a text belongs to the held-out split: decided by its hash alone, wherever it stands.

    Its 64-bit BLAKE2b, read as a number in [0, 1), is below `fraction`.
    """
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') < fraction * 2**64


def describe(files: list[str]) -> dict[str, int | str]:
    """Returns what identifies the files: their number, bytes, and a SHA-256.

    Hashed are each file's name below their common directory, its size, and its first and last
    64 KiB: enough to notice other data, and quick for terabytes. Times of change do not count.
    """
    places = [path if storage.is_remote(path) else os.path.abspath(path) for path in files]
    root = _common_directory(places)
    digest = hashlib.sha256()
    total = 0
    for path, place in zip(files, places, strict=True):
        size = storage.size(path)
        with storage.open_file(path) as file:
            head = file.read(SAMPLED_BYTES)
            file.seek(max(0, size - SAMPLED_BYTES))
            tail = file.read(SAMPLED_BYTES)
        name = os.path.relpath(place, root) if root else place
        digest.update(repr((name, size, hashlib.sha256(head + tail).hexdigest())).encode())
        total += size
    return {'files': len(files), 'bytes': total, 'sha256': digest.hexdigest()}


def _common_directory(places: list[str]) -> str:
    """Returns the directory that all files are below; '' if some are behind a URL: then names are whole."""
    if any(map(storage.is_remote, places)):
        return ''
    return os.path.commonpath([os.path.dirname(place) for place in places])
