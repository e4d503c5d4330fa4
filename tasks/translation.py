"""Translation from one language to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import translation
from tasks.metrics.bootstrap import Score

FIELDS = {'source': 'source|en', 'target': 'target|zh'}
ASKED = ('source',)
LONG = 'source'
PROMPT = 'Translate: {source}'
HEAD = None
BEST = 'chrf'
BUILTIN = 'builtin:place-names'


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why an example cannot be used."""
    return None if all(isinstance(value, str) for value in fields.values()) else 'a field is no text'


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the translation."""
    return fields['target']


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns bleu, over the tokens of task.language, and chrf."""
    answers = [each.text for each in predictions]
    references = [answer(example.fields) for example in examples]
    return {
        'bleu': translation.bleu(answers, references, config.task.language),
        'chrf': translation.chrf(answers, references),
    }


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The text as it is: names and numbers are often the same in both languages."""
    return 'copy of the source', [Prediction(example.fields['source']) for example in examples]
