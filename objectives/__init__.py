"""What is learnt: each file turns rows of tokens into a batch, and a batch into (loss sum, weight).

check(config, model_config, tokenizer)                 UserError if they do not go together
lengths(config)                                        tokens of a row that decoder and encoder read
make_batch(rows_RT, *, tokenizer, config, seeds_R)     NumPy; seeds_R decide what is random in a row
loss(model, params, batch, *, config, dropout_key)     (loss sum, weight, sums of metrics)
row_factors(batch, *, config, rows)                    where there is one: of the gradients of tables' rows
LOOKUPS                                                where tables are looked up: training/table_rows.py
row(config), lay_out(examples, config)                 of labelled examples: objectives/task_rows.py
train_flops_per_row(config, model_config, tokenizer)   where the model is no Transformer: what a row costs
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from configs.errors import choose
from model import flops

SHARED = ('cross_entropy', 'segments', 'task_rows', 'word_windows')  # what several of them use


def get(name: str) -> ModuleType:
    """Returns the objective `objectives/NAME.py`; UserError with the choices if there is none."""
    known = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED]
    return importlib.import_module(f'{__name__}.{choose("objective", name, known)}')


def train_flops_per_row(
    objective: ModuleType,
    config: Any,
    model_config: Any,
    tokenizer: Any,
    learnt: Callable[[str], bool] = lambda name: True,
) -> int:
    """Returns the floating-point operations of a row's forward and backward passes.

    `learnt` says, of a parameter's name, whether it is; frozen ones cost less.
    """
    if hasattr(objective, 'train_flops_per_row'):
        return objective.train_flops_per_row(config, model_config, tokenizer)
    lengths = objective.lengths(config)
    return flops.train_flops_per_row(
        model_config,
        lengths.tokens,
        encoder_length=lengths.encoder_tokens,
        predicted=lengths.predicted,
        learnt=learnt,
    )
