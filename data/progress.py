"""Progress of prepare.py: a live bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10


class PreparationProgress:
    """Counts source bytes, documents and tokens; a context manager.

    total: bytes of source in all; done: those finished by an earlier run, which do not count
    for the speed.
    """

    def __init__(self, total: int, done: int = 0):
        self.total, self.done, self.earlier = total, done, done
        self.documents = self.tokens = 0
        self.started = self.last_line = time.monotonic()
        self.bar = None
        if Console().is_terminal:
            columns = (BarColumn(), TextColumn('{task.percentage:3.0f} %'), TextColumn('{task.description}'))
            self.bar = Progress(*columns, TimeRemainingColumn(), transient=True)
            self.task = self.bar.add_task('', total=total, completed=done)

    def __enter__(self) -> PreparationProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def add(self, size: int, documents: int, tokens: int = 0) -> None:
        """Counts one more finished piece of `size` source bytes."""
        self.done += size
        self.documents += documents
        self.tokens += tokens
        now = time.monotonic()
        speed = (self.done - self.earlier) / (now - self.started + 1e-9)
        text = (
            f'{self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB, {self.documents:,} documents, '
            + (f'{self.tokens / 1e6:,.1f} M tokens, ' if self.tokens else '')
            + f'{speed / 1e6:.1f} MB/s'
        )
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=text)
        elif now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            print(f'{text}, {(self.total - self.done) / speed:.0f} s left', flush=True)
