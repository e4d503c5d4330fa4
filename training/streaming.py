"""Texts seen while they grow: stop strings end them, and what is final goes to a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

UNFINISHED = '\ufffd'  # what decoding gives for bytes that are no whole character yet


def up_to(text: str, stop: Iterable[str]) -> str:
    """Returns what stands in a text before the first of the stop strings, or all of it."""
    return text[: min((at for string in stop if (at := text.find(string)) >= 0), default=len(text))]


class TextWatch:
    """A `generation.Watch` over texts.

    A text ends with the token that completes a stop string, whether or not the string begins in
    the prompt or ends within the token; the whole token stays, as in transformers.

    Args:
      decode: ids to text. Ids added at the end may change only trailing U+FFFD.
      prompts: ids of each text's beginning.
      stop: stop strings.
      write: takes the first text piece by piece, prompt included, each character once it is final;
        None: nobody reads along.
    """

    def __init__(
        self,
        decode: Callable[[Iterable[int]], str],
        prompts: Sequence[np.ndarray],
        stop: Sequence[str] = (),
        write: Callable[[str], object] | None = None,
    ):
        self._decode, self._prompts, self._stop, self._write = decode, prompts, stop, write
        self._prompt_lengths = [len(decode(prompt)) for prompt in prompts] if stop else []
        self._ends: list[int | None] = [None] * len(prompts)
        self._searched = [0] * len(prompts)  # new tokens in which no stop string ends
        self._written = 0  # characters

    def __call__(self, new: list[np.ndarray]) -> list[int | None]:
        """Returns after how many of its new tokens each text ends; None: it goes on."""
        for row, tokens in enumerate(new):
            if self._stop and self._ends[row] is None:
                self._ends[row] = self._find_end(row, tokens)
        if self._write:
            self._pass_on(self._text(0, new[0][: self._ends[0]]).rstrip(UNFINISHED))
        return self._ends

    def finish(self, text: str) -> None:
        """Writes what is left of the first text, now that it is whole."""
        if self._write:
            self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        if self._write and len(text) > self._written:
            self._write(text[self._written :])
            self._written = len(text)

    def _text(self, row: int, new: np.ndarray) -> str:
        return self._decode(np.concatenate([self._prompts[row], new]))

    def _find_end(self, row: int, new: np.ndarray) -> int | None:
        if self._stops(row, new):
            return next(n for n in range(self._searched[row] + 1, len(new) + 1) if self._stops(row, new[:n]))
        self._searched[row] = len(new)
        return None

    def _stops(self, row: int, new: np.ndarray) -> bool:
        """True if a stop string ends after the prompt."""
        text, length = self._text(row, new), self._prompt_lengths[row]
        return any(text.find(stop, max(0, length - len(stop) + 1)) >= 0 for stop in self._stop)
