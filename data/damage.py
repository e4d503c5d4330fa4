"""Damage: what of a source cannot be read, and what becomes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from configs.errors import UserError


class Damage(UserError):
    """Bytes of a source that cannot be read: the file, the position and what is wrong there."""


Report = Callable[[Damage], None]  # is told of damage; raises it, or lets reading go on behind it


def reporter(config: ConfigDict, count: Report | None = None) -> Report:
    """Returns what readers are to call: what raises, or with data.skip_damaged `count`, or what prints."""
    return (count or _print) if config.data.skip_damaged else _refuse


def _refuse(damage: Damage) -> None:
    raise damage


def _print(damage: Damage) -> None:
    print(f'left out: {damage}', file=sys.stderr, flush=True)
