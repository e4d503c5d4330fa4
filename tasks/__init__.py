"""Applications: each file says how an example becomes text or a class, and how answers are scored.

FIELDS      {field: where it is in a record}, as data/records.py reads it; task.fields changes it
ASKED       fields that make the question; the others are the answer
LONG        the field of the question that is cropped where it does not fit
PROMPT      template of the question, for models that write; task.prompt changes it
HEAD        what an encoder answers with: 'classes', 'span', or None where it cannot
BEST        the metric by which models are told apart
BUILTIN     source of the few examples that every machine has (tasks/builtin.py)
problem(fields)                          why an example cannot be used, or None
answer(fields)                           the text to be written
turns(fields, config)                    where there are several: [(role, text)]; else prompt and answer
labels(fields), as_booleans(texts, known)  of classes: those of an example; texts as bool [N, C]
span(fields)                             of spans: characters [start, end) of the answer in `context`, or None
score(predictions, examples, config)     {metric: Score}
baseline(training, examples, config)     (what it does, its predictions): the least that a model must beat
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from types import ModuleType

import numpy as np

from configs.errors import choose

SHARED = ('builtin', 'examples', 'framing', 'metrics')  # what all of them use


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A model's answer; of classes also float32 [C], the probability of each of task.labels."""

    text: str
    probabilities: np.ndarray | None = None


def names() -> list[str]:
    """Returns the names of all tasks."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED]


def get(name: str) -> ModuleType:
    """Returns the task `tasks/NAME.py`; UserError with the choices if there is none."""
    return importlib.import_module(f'{__name__}.{choose("task.name", name, names())}')
