"""How far this process is, for whoever watches it; and the stacks of its threads when a step hangs."""

from __future__ import annotations

import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLOW, SLOW_SECONDS = 10.0, 30.0  # a step is slow after this many medians, and no sooner than this


class Progress:
    """Which step this process has begun and which it has finished; written by the loop, read by threads.

    `record` is the file, if any, that gets a copy of what is said about the end of the run or a slow step.
    """

    def __init__(self) -> None:
        self.begun, self.finished, self.busy = 0, 0, False
        self.record: Path | None = None
        self._first: int | None = None
        self._since = time.monotonic()
        self._seconds: deque[float] = deque(maxlen=101)

    def begin(self, step: int) -> None:
        """Says that `step` is given to the devices."""
        now = time.monotonic()
        if self._first is None:
            self._first = step
        elif step > self._first + 1:  # the first step's time is the compiler's
            self._seconds.append(now - self._since)
        self.begun, self._since = step, now

    def finish(self, step: int) -> None:
        """Says that the results of `step` are known."""
        self.finished = step

    @contextmanager
    def pause(self) -> Iterator[None]:
        """For what is no step and may take any time: evaluation, samples, checkpoints."""
        self.busy = True
        try:
            yield
        finally:
            self._since = time.monotonic()
            self.busy = False

    def median(self) -> float | None:
        """Returns the median of the latest steps in seconds, or None when too few were made."""
        return statistics.median(self._seconds) if len(self._seconds) >= 5 else None

    def seconds(self) -> float:
        """Returns for how long the present step has been going on; 0 in a pause."""
        return 0.0 if self.busy else time.monotonic() - self._since

    def say(self, text: str) -> None:
        """Writes a line to standard error and to `record`."""
        print(text, file=sys.stderr, flush=True)
        if self.record:
            with self.record.open('a', encoding='utf-8') as file:
                file.write(text + '\n')


def watch(progress: Progress) -> None:
    """Starts a thread that writes the stacks of all threads, once a step, when a step is slow."""
    threading.Thread(target=_watch, args=(progress,), daemon=True, name='watchdog').start()


def _watch(progress: Progress) -> None:
    told = None
    while True:
        time.sleep(1)
        median, seconds, step = progress.median(), progress.seconds(), progress.begun
        if median is None or step == told or seconds < max(SLOW * median, SLOW_SECONDS):
            continue
        told = step
        progress.say(
            f'step {step} began {seconds:.0f} s ago and the next has not, though the median step takes '
            f'{median:.2f} s; the last step finished is {progress.finished}. What each thread is doing:'
        )
        faulthandler.dump_traceback(sys.stderr)
        if progress.record:
            with progress.record.open('a', encoding='utf-8') as file:
                faulthandler.dump_traceback(file)
