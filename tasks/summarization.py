"""Summarization: what a text says, in few words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import rouge
from tasks.metrics.bootstrap import Score

FIELDS = {'text': 'text|document|article|content', 'summary': 'summary|highlights|target|title'}
ASKED = ('text',)
LONG = 'text'
PROMPT = '{text}\n\nSummary:'
HEAD = None
BEST = 'rougeL'
BUILTIN = 'builtin:docstring-pairs'
SENTENCE = re.compile(r'.*?(?:[.!?](?=\s)|[。！？]|\n\s*\n|$)', re.DOTALL)


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why an example cannot be used."""
    return None if all(isinstance(value, str) for value in fields.values()) else 'a field is no text'


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the summary, on one line."""
    return ' '.join(fields['summary'].split())


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns rouge1, rouge2 and rougeL, over characters where task.language is 'zh'."""
    answers = [each.text for each in predictions]
    return rouge.scores(answers, [answer(example.fields) for example in examples], config.task.language)


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The first sentence, which is hard to beat in news."""
    return 'first sentence', [Prediction(first_sentence(example.fields['text'])) for example in examples]


def first_sentence(text: str) -> str:
    """Returns a text up to where its first sentence ends."""
    found = SENTENCE.match(text.strip())
    return ' '.join(found[0].split()) if found else ''
