"""loss.png: the loss of training and of held-out text over the steps."""

from __future__ import annotations

from pathlib import Path

from training.tracking import read_metrics


def draw_loss(metrics_file: Path, picture: Path) -> None:
    """Draws `picture` from a metrics.jsonl, beside and then into place."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    records = read_metrics(metrics_file)
    series = {'loss': 'training', 'eval/loss': 'held-out'}
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120, layout='constrained')
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
    beside = picture.with_name('loss.tmp.png')
    figure.savefig(beside)
    pyplot.close(figure)
    beside.replace(picture)
