"""The table that prepare.py ends with."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from data import manifest
from data.preparation import Summary


def show(result: Summary) -> None:
    """Prints what was prepared, how large it is, and where it stands."""
    console = Console(highlight=False, soft_wrap=True)
    if result.was_finished:
        console.print(f'{result.directory} is finished already: nothing to do.')
    table = Table(show_header=False, box=None)
    for name, value in _lines(result):
        table.add_row(name, value)
    console.print(table)


def _lines(result: Summary) -> list[tuple[str, str]]:
    lines = [('tokenizer', f'{result.tokenizer.vocab_size:,} pieces')]
    if result.manifest:
        train, held_out = result.manifest['train'], result.manifest['eval']
        documents, size, tokens = (train[key] + held_out[key] for key in ('documents', 'bytes', 'tokens'))
        lines += [
            ('documents', f'{documents:,}'),
            ('text', f'{size:,} bytes'),
            ('tokens', f'{tokens:,} ({size / tokens:.2f} bytes each)'),
            ('held out', f'{held_out["documents"]:,} documents, {held_out["bytes"] / size:.2%} of the bytes'),
            ('rows', f'{train["rows"]:,} of {_row_length(result.manifest)} tokens to train on'),
            ('packing', _packing(result.manifest)),
            ('shards', f'{len(train["shards"])} to train on, {len(held_out["shards"])} held out'),
        ]
        lines += [('left out', reason) for reason in manifest.left_out(result.manifest)]
    if not result.was_finished:
        lines.append(('time', f'{result.seconds:.1f} s'))
    return [*lines, ('where', str(result.directory))]


def _packing(prepared: dict) -> str:
    """Returns what packing costs the text to train on: documents cut by borders of rows, and padding."""
    train = prepared['train']
    width, stride = manifest.layout(prepared)
    places = train['rows'] * stride + width - stride
    padding = f'{1 - train["tokens"] / places:.2%} of the places are padding'
    if 'cuts' not in train:  # pairs, and what was prepared before they were counted
        return padding
    return f'{prepared["config"]["data.packing"]}: {train["cuts"]:,} cuts, {padding}'


def _row_length(prepared: dict) -> str:
    targets = prepared.get('target_length', 0)
    return f'{prepared["sequence_length"]} + {targets}' if targets else f'{prepared["sequence_length"]}'
