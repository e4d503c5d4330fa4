"""What a person sees: lines on the terminal and in log.txt, and one live line of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 140  # of tables in log.txt


class Log:
    """Prints to the terminal and appends the same text, uncoloured, to RUN/log.txt.

    Processes other than the main one are silent: they are made with `path=None, quiet=True`.
    """

    def __init__(self, path: Path | None, *, quiet: bool = False):
        self.terminal = Console(quiet=quiet, highlight=False, soft_wrap=True)
        if not self.terminal.is_terminal:
            self.terminal.width = WIDTH  # a file or a pipe wraps nothing
        self._file = path.open('a', encoding='utf-8') if path else None
        self._plain = Console(file=self._file, highlight=False, width=WIDTH) if self._file else None
        self._live = self.terminal.is_terminal and not quiet
        self._open = False

    def __call__(self, message: str | Table, *, style: str = '') -> None:
        """Writes a line, or a table, to both."""
        self.end_progress()
        self.terminal.print(message, style=style, markup=False)
        if self._plain and self._file:
            self._plain.print(message, markup=False)
            self._file.flush()

    def progress(self, text: str) -> None:
        """Shows `text` in place of the last progress line; off a terminal, as a line of its own."""
        if not self._live:
            self(text)
            return
        sys.stdout.write('\r\x1b[2K' + text[: self.terminal.width - 1])
        sys.stdout.flush()
        self._open = True

    def end_progress(self) -> None:
        """Ends the live line, so that what follows stands below it."""
        if self._open:
            sys.stdout.write('\n')
            self._open = False

    def close(self) -> None:
        """Ends the live line and the file."""
        self.end_progress()
        if self._file:
            self._file.close()


def table(title: str, columns: list[str], rows: list[tuple]) -> Table:
    """Returns a table; columns of numbers are aligned to the right."""
    grid = Table(title=title, title_justify='left', header_style='bold', box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = bool(rows) and isinstance(rows[0][index], int | float)
        grid.add_column(column, justify='right' if numeric else 'left', no_wrap=True)
    for row in rows:
        grid.add_row(*(f'{cell:,}' if isinstance(cell, int | float) else str(cell) for cell in row))
    return grid


def parameter_table(rows: list[tuple[str, str, str, str, int]]) -> Table:
    """Returns the table of `training.state.describe_parameters`."""
    return table('Parameters', ['name', 'shape', 'logical axes', 'cut over', 'bytes per device'], rows)


def scores_line(step: int, scores: dict[str, float]) -> str:
    """Returns the line for what an evaluation gave: all metrics of the whole, and of each source the loss."""
    shown = [name for name in scores if name.count('/') == 1 or name.endswith('/loss')]
    return f'step {step}: ' + ' · '.join(f'{name} {scores[name]:.4f}' for name in shown)


class Pace:
    """Time since the last reading: seconds a step, tokens a second, what remains."""

    def __init__(
        self, *, step: int, num_steps: int, tokens_per_step: int, flops_per_step: float, peak: float | None
    ):
        self._num_steps, self._tokens, self._flops, self._peak = (
            num_steps,
            tokens_per_step,
            flops_per_step,
            peak,
        )
        self._step, self._time = step, time.perf_counter()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time of the block, which is not training, out of the rates."""
        start = time.perf_counter()
        yield
        self._time += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """Returns the rates since the last call, under their metric names."""
        now = time.perf_counter()
        seconds = max((now - self._time) / max(step - self._step, 1), 1e-9)
        self._step, self._time = step, now
        rates = {'step_seconds': seconds, 'tokens_per_second': self._tokens / seconds}
        if self._peak:
            rates['mfu'] = self._flops / seconds / self._peak
        return rates

    def line(self, step: int, metrics: dict[str, float]) -> str:
        """Returns the progress line for the metrics of `step`."""
        left = int(metrics['step_seconds'] * (self._num_steps - step))
        skipped = f' · {metrics["skipped_steps"]:.0f} skipped' if metrics.get('skipped_steps') else ''
        mfu = f' · MFU {metrics["mfu"]:.1%}' if 'mfu' in metrics else ''
        return (
            f'step {step}/{self._num_steps} · loss {metrics["loss"]:.4f} · lr {metrics["learning_rate"]:.2e}'
            f' · {metrics["tokens_per_second"]:,.0f} tokens/s{mfu}'
            f'{skipped} · {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left'
        )
