"""A plan as a picture: memory against the chip's, and what bounds a step."""

from __future__ import annotations

from pathlib import Path

from data.files import written_whole
from planning.report import Plan


def draw(plan: Plan, path: Path) -> None:
    """Writes the picture; its format is the file's ending, such as .png or .svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    memory, times = figure.subplots(1, 2)
    _draw_memory(plan, memory)
    _draw_times(plan, times)
    figure.suptitle(f'{plan.name} on {plan.where}', fontsize=11)
    with written_whole(path) as file:
        figure.savefig(file, format=path.suffix.lstrip('.'), dpi=150)


def _draw_memory(plan: Plan, axes) -> None:
    left = 0.0
    parts = {
        'parameters': plan.step.parameters,
        'optimizer': plan.step.optimizer,
        'activations, gradients': plan.step.temporaries,
    }
    for label, size in parts.items():
        if not size:  # in the host's memory
            continue
        axes.barh(0, size / 1e9, left=left, label=label)
        left += size / 1e9
    axes.axvline(plan.chip.memory / 1e9, color='black', linestyle='--', label=f'memory of a {plan.chip.name}')
    axes.set(xlabel='GB on one device, at the peak', yticks=[], ylim=(-1, 1.6))
    axes.legend(loc='upper left', fontsize=8, ncols=2, frameon=False)


def _draw_times(plan: Plan, axes) -> None:
    if not plan.step.fits:
        axes.text(0.5, 0.5, 'does not fit', ha='center', va='center')
        axes.set_axis_off()
        return
    roof = plan.roofline
    times = {'products': roof.compute, 'memory': roof.memory}
    times |= {f'links of {name}': seconds for name, seconds in roof.links.items()}
    times |= {'sent alone': roof.alone} if roof.alone else {}
    times |= {'update': roof.update}
    bars = axes.barh(list(times), [1e3 * seconds for seconds in times.values()], color='tab:gray')
    slowest = max(range(len(bars)), key=lambda i: bars[i].get_width())
    bars[slowest].set_color('tab:red')
    axes.invert_yaxis()
    axes.set(xlabel=f'ms of a step, at least · at best {roof.mfu:.0%} MFU')
