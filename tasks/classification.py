"""Classification of texts into one of several classes, or with task.multi_label into any of them."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import classification
from tasks.metrics.bootstrap import Score

FIELDS = {'text': 'text|sentence|review|content', 'label': 'label|labels|class'}
ASKED = ('text',)
LONG = 'text'
PROMPT = '{text}\n\nClass:'
HEAD = 'classes'
BEST = 'macro_f1'
BUILTIN = 'builtin:docstring-kinds'


def labels(fields: Mapping[str, Any]) -> list[str]:
    """Returns the classes of an example; several are a list, or have semicolons between."""
    label = fields['label']
    several = label if isinstance(label, list | tuple) else _text(label).split(';')
    return [_text(each).strip() for each in several if _text(each).strip()]


def _text(label: Any) -> str:
    """Returns a class as a text; numbers that are whole have no point, as in a table with gaps."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why an example cannot be used."""
    return 'label is empty' if 'label' in fields and fields['label'] == '' else None


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the classes as a text."""
    return '; '.join(sorted(labels(fields)))


def as_booleans(texts: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Returns bool [N, C] of classes as texts; what is none of them is False everywhere."""
    return np.array([[label in text.split('; ') for label in known] for text in texts], bool).reshape(
        len(texts), len(known)
    )


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns accuracy, macro_f1 and, where there are probabilities, calibration_error."""
    known = config.task.labels
    found = [each.probabilities for each in predictions]
    return classification.scores(
        as_booleans([answer(example.fields) for example in examples], known),
        as_booleans([each.text.strip() for each in predictions], known),
        None if any(each is None for each in found) or config.task.multi_label else np.stack(found),  # pyright: ignore
    )


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The most frequent class for every example."""
    most = collections.Counter(answer(example.fields) for example in training).most_common(1)[0][0]
    return f'always {most!r}', [Prediction(most)] * len(examples)
