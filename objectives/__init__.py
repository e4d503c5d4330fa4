"""What is learnt: each file turns rows of tokens into a batch, and a batch into (loss sum, weight)."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from configs.errors import choose


def get(name: str) -> ModuleType:
    """Returns the objective `objectives/NAME.py`; UserError with the choices if there is none."""
    known = [module.name for module in pkgutil.iter_modules(__path__) if module.name != 'cross_entropy']
    return importlib.import_module(f'{__name__}.{choose("objective", name, known)}')
