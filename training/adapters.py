"""Adapters (LoRA) of a whole model: checked when training begins, and merged into their kernels for use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from configs.errors import UserError
from model import lora
from model.lora import LoRA
from training import freezing
from training.freezing import Learnt


def check(params: Mapping[str, Any], targets: Sequence[str]) -> None:
    """Raises UserError for a pattern that gave no kernel adapters."""
    names = [
        name.removesuffix(lora.A) + lora.KERNEL for name in freezing.named(params) if name.endswith(lora.A)
    ]
    for target in targets:
        if not any(re.search(target, name) for name in names):
            raise UserError(
                f'lora.targets: {target!r} matches no kernel of the blocks, such as '
                "'blocks/attention/query/kernel' or 'blocks/mlp/up/kernel'."
            )


def merge(params: Mapping[str, Any], adapters: LoRA) -> Any:
    """Returns parameters with adapters merged into kernels, which lie as they did; `params` are used up."""
    beside, kernels = freezing.split(params, Learnt(only=lora.ADAPTERS))
    shardings = jax.tree.map(lambda array: array.sharding, kernels)

    def compute(kernels: Any, beside: Any) -> Any:
        return lora.merge(freezing.join(kernels, beside), adapters)

    return jax.jit(compute, out_shardings=shardings, donate_argnums=0)(kernels, beside)
