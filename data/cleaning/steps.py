"""What a cleaning step is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Dropped:
    """Why a document is dropped, in words that the report counts; detail: what in it was the reason."""

    reason: str
    detail: str = ''


@dataclass(frozen=True)
class Step:
    """A named function of a document's text alone.

    apply: returns the text as it should be (a step that changes), or the text as it is or Dropped (a
    filter). Applied again it changes nothing. placeholder: what stands in place of what was replaced,
    '' if nothing does; the report counts them, and shows nothing of what stood there. judges: it is made for
    documents, and says nothing of the answers in pairs.
    """

    name: str
    apply: Callable[[str], str | Dropped]
    placeholder: str = ''
    judges: bool = False
