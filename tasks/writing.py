"""Writing assistance: a text is corrected, rewritten or continued as an instruction says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import edits, translation
from tasks.metrics.bootstrap import Score

FIELDS = {
    'instruction': 'instruction',
    'text': 'text|input|source',
    'reply': 'reply|output|target',
}
ASKED = ('instruction', 'text')
LONG = 'text'
PROMPT = '{instruction}\n\n{text}'
HEAD = None
BEST = 'edit_f0.5'
BUILTIN = 'builtin:misspelt-sentences'


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why an example cannot be used."""
    return None if all(isinstance(value, str) for value in fields.values()) else 'a field is no text'


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the text as it should be."""
    return fields['reply']


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns edit_precision, edit_recall, edit_f0.5 and chrf."""
    sources = [example.fields['text'] for example in examples]
    answers = [each.text.strip() for each in predictions]
    replies = [answer(example.fields) for example in examples]
    return edits.scores(sources, answers, replies) | {'chrf': translation.chrf(answers, replies)}


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The text as it is."""
    return 'copy of the text', [Prediction(example.fields['text']) for example in examples]
