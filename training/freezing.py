"""Which parameters are learnt: all but those whose names match patterns, which stay as they are.

The two parts are nested dicts without a name in common, so that gradients, the optimizer's state and moving
averages are made of what is learnt alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from configs.errors import UserError


def named(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {'blocks/attention/query/kernel': leaf, …} of a nested dict."""
    return flatten_dict(params, sep='/')


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Does one of the regular expressions occur in a parameter's name?"""
    return any(re.search(pattern, name) for pattern in patterns)


def size(params: Mapping[str, Any] | None) -> int:
    """Returns how many numbers parameters are; None: none."""
    return sum(leaf.size for leaf in named(params or {}).values())


def split(params: Mapping[str, Any], patterns: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns (learnt, frozen); None if nothing is frozen. Leaves are arrays, or what stands for them.

    Raises UserError for a pattern that matches no parameter, and if nothing is left to learn.
    """
    leaves = named(params)
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in leaves):
            raise UserError(
                f'optimizer.frozen: {pattern!r} matches no parameter; there are {", ".join(sorted(leaves))}.'
            )
    frozen = {name: leaf for name, leaf in leaves.items() if matches(name, patterns)}
    learnt = {name: leaf for name, leaf in leaves.items() if name not in frozen}
    if not learnt:
        raise UserError(f'optimizer.frozen={tuple(patterns)} leaves nothing to learn; freeze less.')
    return unflatten_dict(learnt, sep='/'), unflatten_dict(frozen, sep='/') if frozen else None


def join(learnt: Mapping[str, Any], frozen: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the parameters whose two parts these are."""
    return unflatten_dict(named(learnt) | named(frozen or {}), sep='/')
