"""What became of the source: DIR/report.json, DIR/report.png and DIR/removed.jsonl.zst.

report.json: for each source, and of all, the documents and bytes that went into each step, that it
changed, dropped and let out, with examples; then tokens, lengths of documents, and what packing costs.
removed.jsonl.zst: a line for each document that is not in the shards: {id, step, reason, detail}.

Bytes add up: bytes_in + bytes_difference - bytes_dropped = bytes_out, which is bytes_in of the next step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from data import duplicates, index, manifest, report_picture
from data.cleaned import path_of
from data.cleaning.steps import Dropped
from data.cleaning.tally import Tally, total
from data.sources import Split

FORMAT = 1
LENGTH_BUCKETS = 24  # powers of two, in tokens


def write(
    directory: Path, sources: dict[str, list[str]], parts: list[Split], results: list[dict], prepared: dict
) -> None:
    """Writes all that is said of a preparation.

    sources: {name in data.source: files}; results: what tokenise_part returned of each of `parts`;
    prepared: what the manifest says.
    """
    tallies = [Tally.from_json(result['tally']) for result in results]
    _write_removed(directory, tallies)
    owner = {path: name for name, files in reversed(sources.items()) for path in files}
    by_source: dict[str, list[Tally]] = {name: [] for name in sources}
    for part, tally in zip(parts, tallies, strict=True):
        by_source[owner[part.path]].append(tally)
    content = {
        'format': FORMAT,
        'sources': {name: describe(total(mine)) for name, mine in by_source.items()},
        'all': describe(total(tallies)),
        **_tokens(directory, prepared),
    }
    manifest.write(directory / 'report.json', content)
    report_picture.draw(content, directory / 'report.png')


def describe(tally: Tally) -> dict:
    """Returns what the report says of a tally: each step with what went in and came out."""
    steps = []
    documents, size = tally.documents, tally.size
    for name, step in tally.steps.items():
        said = {
            'step': name,
            'documents_in': documents,
            'bytes_in': size,
            'documents_changed': step.changed,
            'documents_dropped': step.dropped,
            'bytes_difference': step.difference,
            'bytes_dropped': step.dropped_bytes,
        }
        documents -= step.dropped
        size += step.difference - step.dropped_bytes
        said |= {'documents_out': documents, 'bytes_out': size}
        if step.items:
            said['items_replaced'] = step.items
        steps.append(said | {'reasons': dict(step.reasons.most_common()), 'examples': step.examples})
    return {
        'documents_in': tally.documents,
        'bytes_in': tally.size,
        'damaged': tally.damaged,
        'damages': tally.damages,
        'steps': steps,
        'documents_out': documents,
        'bytes_out': size,
    }


def _write_removed(directory: Path, tallies: list[Tally]) -> None:
    """Writes the list of removed documents; adds the duplicates, known only now, to `tallies`."""
    duplicated = duplicates.removed(directory / 'parts', len(tallies))
    if duplicates.load(directory / 'parts') is not None:
        for tally in tallies:
            tally.step('duplicates')
    following = next(duplicated, None)
    beside = directory / 'removed.jsonl.zst.tmp'
    with open(beside, 'wb') as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        for number, tally in enumerate(tallies):
            path = path_of(directory, number, 'removed.jsonl')
            if path.exists():
                packed.write(path.read_bytes())
            while following and following[0] == number:
                _, size, said = following
                packed.write(json.dumps(said, ensure_ascii=False).encode() + b'\n')
                tally.step('duplicates').drop(
                    said['id'], f'as {said["detail"]}', size, Dropped(said['reason']), str
                )
                following = next(duplicated, None)
    beside.replace(directory / 'removed.jsonl.zst')


def _tokens(directory: Path, prepared: dict) -> dict:
    """Returns what the report says of tokens: their number, lengths of documents, and the cost of packing."""
    width, stride = manifest.layout(prepared)
    counts, cut, documents = np.zeros(LENGTH_BUCKETS, np.int64), 0, 0
    for name in ('train', 'eval'):
        for start_D, tokens_D in _places(directory / prepared[name]['index']['file']):
            counts += np.bincount(np.minimum(_bucket(tokens_D), LENGTH_BUCKETS - 1), minlength=LENGTH_BUCKETS)
            end_D = start_D + tokens_D - 1
            split_D = tokens_D > width if stride == width else start_D // stride != end_D // stride
            cut += int(np.count_nonzero(split_D))
            documents += len(tokens_D)
    tokens, size, rows = (
        sum(prepared[name][field] for name in ('train', 'eval')) for field in ('tokens', 'bytes', 'rows')
    )
    left_out = sum(
        number
        for name in ('train', 'eval')
        for key, number in prepared[name].items()
        if key.startswith('left_out')
    )
    last = max([0, *np.flatnonzero(counts).tolist()])
    return {
        'tokens': {
            'documents': documents,
            'bytes': size,
            'tokens': tokens,
            'bytes_per_token': size / max(1, tokens),
            'tokens_per_byte': tokens / max(1, size),
        },
        'lengths': [  # in tokens, both ends included
            {'from': 1 << at, 'to': (2 << at) - 1, 'documents': int(counts[at])} for at in range(last + 1)
        ],
        'packing': {
            'rows': rows,
            'row_tokens': stride,
            'padded_share': max(0.0, 1 - tokens / max(1, rows * stride)),
            'cut_share': cut / max(1, documents),  # of documents that go on in another row
            'cropped_share': left_out / max(1, documents + left_out),  # of documents that fit in no row
        },
    }


def _bucket(tokens_D: np.ndarray) -> np.ndarray:
    return np.log2(np.maximum(tokens_D, 1)).astype(np.int64)


def _places(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for table in index.read(path):
        (first_D,) = np.nonzero(table['bytes'].to_numpy())  # other rows: later pieces, each with a bos more
        pieces_D = np.diff(first_D, append=table.num_rows)
        tokens_D = np.add.reduceat(table['tokens'].to_numpy() + table['target_tokens'].to_numpy(), first_D)
        yield table['start'].to_numpy()[first_D], tokens_D - (pieces_D - 1)


def read(directory: Path) -> dict | None:
    """Returns report.json; None of what was prepared before there were reports."""
    path = directory / 'report.json'
    return json.loads(path.read_bytes()) if path.exists() else None
