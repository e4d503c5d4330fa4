"""Where text comes from: the files that `data.source` names, cut into splits, read as documents.

A *split* is a piece of the source that can be read on its own. Splits come in an order that
depends only on the files and the config, and every document belongs to exactly one of them,
whatever their sizes. Plain files are split at byte offsets; compressed ones cannot be entered in
the middle, so several splits share such a file by reading all of it and keeping every n-th document.

Another format is one more entry in FORMATS.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from configs.errors import UserError, choose
from configs.experiment import check_pairs
from data import python_docs, text
from data.compression import COMPRESSIONS, is_compressed, read_blocks
from data.files import write_whole

FORMATS = ('.txt', '.jsonl')
BUILTINS = {  # name: (file in data.path, what yields an identifier and the texts of each document)
    'builtin:python-docs': ('python-docs.jsonl', python_docs.documents),
    'builtin:docstring-pairs': ('docstring-pairs.jsonl', python_docs.pairs),
}
SPLIT_BYTES = 2 << 20  # small enough to keep many processes busy, large enough to make starting cheap
SAMPLED_BYTES = 1 << 16  # hashed at either end of a file to recognise it


@dataclass(frozen=True)
class Document:
    """A text, for pairs its target, and where it stands: 'path:offset', in bytes of the uncompressed file."""

    id: str
    text: str
    target: str = ''

    def __len__(self) -> int:
        """Returns its length in characters."""
        return len(self.text) + len(self.target)

    def size(self) -> int:
        """Returns its length in bytes of UTF-8."""
        return len(self.text.encode()) + len(self.target.encode())


@dataclass(frozen=True)
class Split:
    """The documents of path[start:end] (all for end None) whose number is `part` modulo `parts`."""

    path: str
    start: int = 0
    end: int | None = None
    part: int = 0
    parts: int = 1
    size: int = 0  # bytes of the file that it stands for, for progress


def find_files(config: ConfigDict) -> list[str]:
    """Returns the files of data.source, in the order it names them; UserError if there are none.

    An embedded corpus is written into data.path the first time, and is a file like others then.
    """
    check_pairs(config)
    names = [name.strip() for name in config.data.source.split(',') if name.strip()]
    if not names:
        raise UserError(
            "data.source='' names no text. Give files, directories, globs or "
            + ' or '.join(map(repr, BUILTINS))
            + '.'
        )
    files = dict.fromkeys(path for name in names for path in _expand(name, config))
    for path in files:
        if os.path.getsize(path) == 0:
            raise UserError(f'{path} is empty. Remove it, or write it again if a download broke off.')
        if config.data.target_field and not _has_fields(path):
            raise UserError(
                f'{path} has no fields, so none is data.target_field={config.data.target_field!r}. '
                'Write pairs as .jsonl, one JSON object a line, or leave data.target_field empty.'
            )
    return list(files)


def _has_fields(path: str) -> bool:
    return path.removesuffix('.gz').removesuffix('.zst').endswith('.jsonl')


def _expand(name: str, config: ConfigDict) -> list[str]:
    if name.startswith('builtin:'):
        return [str(_write_builtin(choose('data.source', name, BUILTINS), config))]
    known = [ending + compression for ending in FORMATS for compression in COMPRESSIONS]
    if os.path.isdir(name):
        found = sorted(str(path) for path in Path(name).rglob('*') if path.is_file())
        found = [path for path in found if path.endswith(tuple(known))]
        if not found:
            raise UserError(f'data.source={name!r}: no file in that directory ends in {", ".join(known)}.')
        return found
    found = (
        [name] if os.path.isfile(name) else sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))
    )
    if not found:
        problem = 'no file matches' if glob.has_magic(name) else 'there is no such file or directory'
        raise UserError(f'data.source={name!r}: {problem} (seen from {os.getcwd()}). Mend the path.')
    for path in found:
        if not path.endswith(tuple(known)):
            raise UserError(
                f'{path}: its format is not known. Rename it to end in one of {", ".join(known)}.'
            )
    return found


def _write_builtin(name: str, config: ConfigDict) -> Path:
    file, documents = BUILTINS[name]
    path = Path(config.data.path) / file
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
    """Returns the splits of `files`: plain ones every `split_bytes`, each compressed one in `parts`."""
    splits = []
    for path in files:
        size = os.path.getsize(path)
        if is_compressed(path):
            splits += [Split(path, 0, None, part, parts, size // parts) for part in range(parts)]
        elif path.endswith('.txt') and config.data.text_documents == 'file':
            splits.append(Split(path, 0, None, size=size))
        else:
            starts = range(0, size, split_bytes)
            splits += [Split(path, at, at + split_bytes, size=min(split_bytes, size - at)) for at in starts]
    return splits


def read_split(split: Split, config: ConfigDict) -> Iterator[Document]:
    """Yields the documents of `split` in the order of the file; UserError for what is no text.

    Empty ones are left out, but for pairs, of which a packer says why it leaves them out.
    """
    lines = _has_fields(split.path)
    kind = 'line' if lines else choose('data.text_documents', config.data.text_documents, text.SEPARATORS)
    path, fields = split.path, {'data.text_field': config.data.text_field}
    if config.data.target_field:
        fields['data.target_field'] = config.data.target_field
    found = text.documents(read_blocks(path, split.start), split.start, split.end, kind)
    for number, (offset, content) in enumerate(found):
        if number % split.parts != split.part:
            continue
        if lines:
            texts = text.decode_json(path, offset, content, fields)
        else:
            texts = [text.decode(path, offset, content)]
        if texts[0] or len(texts) > 1:
            yield Document(f'{path}:{offset}', *texts)


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
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in files])
    digest = hashlib.sha256()
    total = 0
    for path in files:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            head = file.read(SAMPLED_BYTES)
            file.seek(max(0, size - SAMPLED_BYTES))
            tail = file.read(SAMPLED_BYTES)
        name = os.path.relpath(os.path.abspath(path), root)
        digest.update(repr((name, size, hashlib.sha256(head + tail).hexdigest())).encode())
        total += size
    return {'files': len(files), 'bytes': total, 'sha256': digest.hexdigest()}
