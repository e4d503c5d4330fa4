"""Low-rank adapters: y = x W + (x A) B · alpha / rank, of which A and B are learnt and W stays as it is.

Source: Hu et al. 2021 (LoRA), section 4.1. A begins normal and B at zero, so that a model begins as it was.

I inputs of a kernel · O its outputs · R rank
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

KERNEL, A, B = 'kernel', 'lora_a', 'lora_b'
ADAPTERS = (r'/lora_[ab]$',)  # patterns of their names


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Which kernels have adapters, and of what size."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # regular expressions that occur in the names of kernels

    @property
    def scale(self) -> float:
        """What the adapters' product is multiplied by."""
        return self.alpha / self.rank

    def adapts(self, path: tuple[str, ...]) -> bool:
        """Has the kernel of the module at `path` adapters?"""
        name = '/'.join((*path, KERNEL))
        return any(re.search(target, name) for target in self.targets)


def merge(params: Mapping[str, Any], lora: LoRA) -> dict[str, Any]:
    """Returns parameters without adapters that compute the same: W + A B · alpha / rank, in float32.

    Args:
      params: nested dict; the adapters [layers, I…, R] and [layers, R, O…] stand beside their
        kernels [layers, I…, O…].
    """
    merged: dict[str, Any] = {
        name: merge(value, lora) if isinstance(value, Mapping) else value for name, value in params.items()
    }
    if A in merged:
        a, b = merged.pop(A), merged.pop(B)
        product = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1, precision='highest'))(a, b)
        merged[KERNEL] = merged[KERNEL] + lora.scale * product
    return merged
