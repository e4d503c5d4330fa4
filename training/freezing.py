"""Which parameters are learnt; the others stay as they are.

The two parts are nested dicts without a name in common, so that gradients, the optimizer's state and moving
averages are made of what is learnt alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from configs.errors import UserError
from model import lora

# Parameters of a task's own, which begin at random where the initial checkpoint has none that fit.
HEADS = (r'^pooler/', r'^classifier/', r'^span_head/')


class Learnt(NamedTuple):
    """Patterns of parameters' names that say what is learnt: all without any."""

    frozen: tuple[str, ...] = ()  # what matches one of these is not
    only: tuple[str, ...] = ()  # if there are any, what matches none of these is not either

    def has(self, name: str) -> bool:
        """Is this parameter learnt?"""
        return not matches(name, self.frozen) and (not self.only or matches(name, self.only))


def learnt(config: ConfigDict) -> Learnt:
    """Returns what an experiment learns: all but optimizer.frozen, with LoRA of adapters and heads."""
    return Learnt(config.optimizer.frozen, (*lora.ADAPTERS, *HEADS) if config.lora.rank else ())


def named(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {'blocks/attention/query/kernel': leaf, …} of a nested dict."""
    return flatten_dict(params, sep='/')


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Does one of the regular expressions occur in a parameter's name?"""
    return any(re.search(pattern, name) for pattern in patterns)


def size(params: Mapping[str, Any] | None) -> int:
    """Returns how many numbers parameters are; None: none."""
    return sum(leaf.size for leaf in named(params or {}).values())


def split(params: Mapping[str, Any], learns: Learnt) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns (learnt, frozen); None if nothing is frozen. Leaves are arrays, or what stands for them.

    Raises UserError for a pattern of `frozen` that matches no parameter, and if nothing is left to learn.
    """
    leaves = named(params)
    for pattern in learns.frozen:
        if not any(re.search(pattern, name) for name in leaves):
            raise UserError(
                f'optimizer.frozen: {pattern!r} matches no parameter; there are {", ".join(sorted(leaves))}.'
            )
    chosen = {name: leaf for name, leaf in leaves.items() if learns.has(name)}
    frozen = {name: leaf for name, leaf in leaves.items() if name not in chosen}
    if not chosen:
        raise UserError(f'optimizer.frozen={learns.frozen} leaves nothing to learn; freeze less.')
    return unflatten_dict(chosen, sep='/'), unflatten_dict(frozen, sep='/') if frozen else None


def join(learnt: Mapping[str, Any], frozen: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the parameters whose two parts these are."""
    return unflatten_dict(named(learnt) | named(frozen or {}), sep='/')
