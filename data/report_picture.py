"""The picture of a report: bytes of each source left after each step, and lengths of documents."""

from __future__ import annotations

from pathlib import Path


def draw(report: dict, picture: Path) -> None:
    """Draws `picture` from the content of a report.json, beside and then into place."""
    from matplotlib.figure import Figure

    steps = ['read', *(step['step'] for step in report['all']['steps'])]
    height = max(3.5, 1.5 + 0.28 * len(steps))
    figure = Figure(figsize=(11, height), dpi=100, layout='constrained')
    left, right = figure.subplots(1, 2)
    begun = [0.0] * len(steps)
    for name, source in report['sources'].items():
        out = {step['step']: step['bytes_out'] for step in source['steps']}
        sizes = [source['bytes_in'] / 1e6]
        for step in steps[1:]:
            sizes.append(out[step] / 1e6 if step in out else sizes[-1])
        left.barh(steps, sizes, left=begun, label=name if len(name) < 40 else f'…{name[-38:]}')
        begun = [start + size for start, size in zip(begun, sizes, strict=True)]
    left.invert_yaxis()
    left.set_xlabel('MB left after each step')
    left.legend(frameon=False, fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.12))
    lengths = report['lengths']
    right.bar(range(len(lengths)), [bucket['documents'] for bucket in lengths])
    right.set_xticks(range(len(lengths)), [_short(bucket['from']) for bucket in lengths])
    right.set_xlabel('tokens of a document, from … on')
    right.set_ylabel('documents')
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    beside = picture.with_name('report.tmp.png')
    figure.savefig(beside)
    beside.replace(picture)


def _short(number: int) -> str:
    return (
        f'{number >> 20}M' if number >= 1 << 20 else f'{number >> 10}k' if number >= 1 << 10 else str(number)
    )
