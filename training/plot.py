"""Pictures: the loss of training and of held-out text over the steps; words by their vectors; scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from data.word_vectors import WordVectors
from training.tracking import read_metrics


def draw_loss(metrics_file: Path, picture: Path) -> None:
    """Draws `picture` from a metrics.jsonl, beside and then into place."""
    records = read_metrics(metrics_file)
    series = {'loss': 'training', 'eval/loss': 'held-out'}
    figure, axes = _figure((8, 4.5))
    for name, label in series.items():
        points = [(record['step'], record[name]) for record in records if record.get(name) is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                label=label,
                linewidth=1.5,
                marker='o' * (name != 'loss'),
                markersize=4,
            )
    axes.set_xlabel('step')
    axes.set_ylabel('loss (nats per token)')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    if axes.has_data():
        axes.legend(frameon=False)
    figure.suptitle(metrics_file.parent.name)
    _save(figure, picture)


def draw_words(vectors: WordVectors, words: Sequence[str], picture: Path) -> None:
    """Draws words where their unit vectors lie on the two axes along which they differ most.

    These are the first principal components of the words given. Raises UserError for unknown words, fewer
    than three, or characters that no font on this machine has.
    """
    import matplotlib

    ids = list(dict.fromkeys(vectors.id_of(word) for word in words))
    if len(ids) < 3:
        raise UserError(f'a picture needs at least three different words, not {len(ids)}.')
    units_WD = vectors.units[ids] - vectors.units[ids].mean(axis=0)
    axes_DW = np.linalg.svd(units_WD, full_matrices=False)[2].T
    places_W2 = units_WD @ axes_DW[:, :2]
    names = [vectors.words[number].removeprefix('\u2581') for number in ids]
    with matplotlib.rc_context({'font.family': _fonts(set(''.join(names)))}):
        figure, axes = _figure((8, 6))
        axes.scatter(*places_W2.T, s=12)
        for name, place in zip(names, places_W2.tolist(), strict=True):
            axes.annotate(name, place, xytext=(4, 4), textcoords='offset points')
        axes.margins(0.12)
        axes.set_xlabel('first principal component')
        axes.set_ylabel('second')
        axes.spines[['top', 'right']].set_visible(False)
        _save(figure, picture)


def draw_confusion(counts: np.ndarray, labels: Sequence[str], picture: Path) -> None:
    """Draws how often each class [C] was taken for which [C + 1], the last being none of them."""
    import matplotlib

    columns = [*labels, '(none)'] if counts[:, -1].any() else list(labels)
    counts = counts[:, : len(columns)]
    with matplotlib.rc_context({'font.family': _fonts(set(''.join(columns)))}):
        size = max(4, 0.6 * len(columns) + 2)
        figure, axes = _figure((size, size))
        axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap='Blues', vmin=0, vmax=1)
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha='right')
        axes.set_yticks(range(len(labels)), labels)
        for (row, column), count in np.ndenumerate(counts):
            dark = count > 0.5 * max(counts[row].sum(), 1)
            axes.text(column, row, f'{count:,}', ha='center', va='center', color='white' if dark else 'black')
        axes.set_xlabel('predicted')
        axes.set_ylabel('true')
        _save(figure, picture)


def draw_choice(metric: str, models: Mapping[str, tuple], baseline: Any, picture: Path) -> None:
    """Draws models by quality, with its interval, and speed; areas are memory, numbers parameters.

    models: {name: (Score, parameters, examples a second, bytes)}; baseline: the Score to beat, or None.
    """
    figure, axes = _figure((8, 5))
    most = max(memory for *_, memory in models.values())
    for name, (score, parameters, speed, memory) in models.items():
        error = [[score.value - score.low], [score.high - score.value]]
        axes.errorbar(speed, score.value, yerr=error, color='gray', capsize=3, zorder=1)
        axes.scatter(speed, score.value, s=900 * memory / most, alpha=0.6, zorder=2)
        label = f'{Path(name).name}\n{parameters / 1e6:.1f} M, {memory / 1e9:.1f} GB'
        axes.annotate(label, (speed, score.value), xytext=(12, 8), textcoords='offset points', fontsize=8)
    if baseline is not None:
        axes.axhline(baseline.value, color='gray', linestyle='--', linewidth=1, label='baseline')
        axes.legend(frameon=False)
    axes.set_xscale('log')
    axes.margins(0.25)
    axes.set_xlabel('examples a second (the farther right, the cheaper)')
    axes.set_ylabel(metric)
    axes.spines[['top', 'right']].set_visible(False)
    _save(figure, picture)


def _fonts(characters: set[str]) -> list[str]:
    """Returns families of fonts of this machine that have all characters together, Matplotlib's own first."""
    from matplotlib import font_manager, get_data_path

    own = str(Path(get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'))
    others = sorted({font.fname for font in font_manager.fontManager.ttflist} - {own})
    chosen, missing = [], set(characters)
    for path in (own, *others):
        if not missing:
            break
        font = font_manager.get_font(path)
        has = missing & {chr(code) for code in font.get_charmap()}
        if has or not chosen:
            chosen.append(font.family_name)
            missing -= has
    if missing:
        shown = ''.join(sorted(missing)[:10])
        raise UserError(
            f'no font on this machine has the characters {shown!r}; install one, such as fonts-noto-cjk on '
            'Debian and Ubuntu, or draw other words.'
        )
    return chosen


def _figure(size: tuple[float, float]) -> tuple[Any, Any]:
    """Returns a figure and its axes; not by pyplot, which is slow to import and keeps figures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout='constrained')
    return figure, figure.subplots()


def _save(figure: Any, picture: Path) -> None:
    beside = picture.with_name(f'{picture.stem}.tmp.png')
    figure.savefig(beside, format='png')
    beside.replace(picture)
