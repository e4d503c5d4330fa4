"""The table that prepare.py ends with."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Column, Table

from data import manifest, mirror, report
from data.preparation import Summary

HEADS = ('documents', 'MB', 'changed', 'dropped', 'MB after')


def show(result: Summary) -> None:
    """Prints what was prepared, how large it is, and where it stands."""
    console = Console(highlight=False, soft_wrap=True)
    if result.was_finished:
        console.print(f'{result.path} is finished already: nothing to do.')
    table = Table(show_header=False, box=None)
    for name, value in _lines(result):
        table.add_row(name, value)
    console.print(table)
    said = report.read(mirror.local(result.path)) if result.manifest else None
    if said and (said['all']['steps'] or said['all']['damaged']):
        for table in _steps(said):
            console.print(table)


def _steps(said: dict) -> Iterator[Table]:
    """Yields tables: what each step did to all sources together; the sources, if several; damage, if any."""
    whole = said['all']
    table = Table('step', *(Column(name, justify='right') for name in HEADS), 'most often', box=None)
    for step in whole['steps']:
        reasons = list(step['reasons'].items())[:2]
        why = ', '.join(f'{reason} {number:,}' for reason, number in reasons)
        replaced = f'{step["items_replaced"]:,} replaced' if 'items_replaced' in step else ''
        table.add_row(step['step'], *_numbers(step), why or replaced)
    total = {name: whole[name] for name in ('documents_in', 'bytes_in', 'documents_out', 'bytes_out')}
    changed = {'documents_dropped': total['documents_in'] - total['documents_out'], 'documents_changed': None}
    table.add_row('all', *_numbers(total | changed), style='bold')
    yield table
    if len(said['sources']) > 1:
        table = Table(
            'source',
            *(Column(name, justify='right') for name in ('documents', 'MB', 'kept', 'MB kept')),
            box=None,
        )
        for name, source in said['sources'].items():
            kept = (f'{source["documents_out"]:,}', f'{source["bytes_out"] / 1e6:,.2f}')
            table.add_row(name, f'{source["documents_in"]:,}', f'{source["bytes_in"] / 1e6:,.2f}', *kept)
        yield table
    if whole['damaged']:
        table = Table(f'{whole["damaged"]:,} damaged pieces were left out, such as', box=None)
        for damage in whole['damages']:
            table.add_row(damage)
        yield table


def _numbers(step: dict) -> list[str]:
    changed = step['documents_changed']
    return [
        f'{step["documents_in"]:,}',
        f'{step["bytes_in"] / 1e6:,.2f}',
        '' if changed is None else f'{changed:,}',
        f'{step["documents_dropped"]:,}',
        f'{step["bytes_out"] / 1e6:,.2f}',
    ]


def _lines(result: Summary) -> list[tuple[str, str]]:
    lines = [('tokenizer', f'{result.tokenizer.vocab_size:,} pieces')]
    if result.manifest:
        train, held_out = result.manifest['train'], result.manifest['eval']
        counted = result.manifest.get('cooccurrences')
        on = '' if counted else ' to train on'
        documents, size, tokens = (train[key] + held_out[key] for key in ('documents', 'bytes', 'tokens'))
        lines += [
            ('documents', f'{documents:,}'),
            ('text', f'{size:,} bytes'),
            ('tokens', f'{tokens:,} ({size / tokens:.2f} bytes each)'),
            ('held out', f'{held_out["documents"]:,} documents, {held_out["bytes"] / size:.2%} of the bytes'),
            ('rows', f'{train["rows"]:,} of {_row_length(result.manifest)} tokens{on}'),
            ('packing', _packing(result.manifest)),
            ('shards', f'{len(train["shards"])} to train on, {len(held_out["shards"])} held out'),
        ]
        if counted:
            records = f'{counted["records"]:,} co-occurrences in {counted["rows"]:,} rows to train on'
            lines.append(('records', records))
        lines += [('left out', reason) for reason in manifest.left_out(result.manifest)]
    if not result.was_finished:
        lines.append(('time', f'{result.seconds:.1f} s'))
    return [*lines, ('where', result.path)]


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
