"""Stopping in good order when the machine, the scheduler or the user says so."""

from __future__ import annotations

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Shutdown:
    """Turns SIGTERM and SIGINT into a request that the loop honours between steps.

    A second SIGINT interrupts at once. With several processes JAX's preemption service catches
    SIGTERM and finds a step at which all can stop together, even if only one was told.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._many = jax.process_count() > 1
        signal.signal(signal.SIGINT, self._receive)
        if not self._many:
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)

    def status(self, step: int) -> int | None:
        """Returns the exit status to stop with after `step`, or None to go on."""
        if self._many:
            reached = multihost_utils.reached_preemption_sync_point(step)
            return 128 + (self._signal or signal.SIGTERM) if reached else None
        return None if self._signal is None else 128 + self._signal
