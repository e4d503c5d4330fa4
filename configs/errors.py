"""The one exception for mistakes a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: scripts print the message alone and exit with status 2.

    The message names the value that was wrong, what was expected and what to do.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean …?' with the known word nearest to `word`, or ''."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean {matches[0]!r}?' if matches else ''


def choose(name: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is among `known`; raises UserError that lists the choices if not."""
    known = list(known)
    if value in known:
        return value
    choices = ', '.join(repr(k) for k in known)
    raise UserError(
        f'{name}={value!r} is not known.{did_you_mean(str(value), known)} Choose one of: {choices}.'
    )
