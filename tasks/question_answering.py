"""Question answering from a text: an encoder marks the answer in it, other models write it.

A question whose answer the text does not have is answered with nothing by an encoder, and with
UNANSWERABLE by models that write.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import bootstrap, squad
from tasks.metrics.bootstrap import Score

FIELDS = {'question': 'question', 'context': 'context', 'answers': 'answers|answer'}
ASKED = ('question', 'context')
LONG = 'context'
PROMPT = '{context}\n\nQuestion: {question}\nAnswer:'
HEAD = 'span'
BEST = 'f1'
BUILTIN = 'builtin:parameter-types'
UNANSWERABLE = 'unanswerable'


def references(fields: Mapping[str, Any]) -> list[str]:
    """Returns the texts of all right answers, none if the question has none.

    They are a text, a list of texts, SQuAD's [{'text', 'answer_start'}], or {'text': [...], …} as in Parquet.
    """
    answers = fields['answers']
    if isinstance(answers, Mapping):
        answers = answers.get('text', [])
    if isinstance(answers, str):
        answers = [answers]
    return [each['text'] if isinstance(each, Mapping) else str(each) for each in answers]


def span(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns [start, end) in characters of the first answer within the context; None if there is none."""
    answers, context = fields['answers'], fields['context']
    found = references(fields)
    if not found:
        return None
    if isinstance(answers, Mapping):
        start = (answers.get('answer_start') or [-1])[0]
    else:
        start = answers[0].get('answer_start', -1) if isinstance(answers[0], Mapping) else -1
    if start < 0 or context[start : start + len(found[0])] != found[0]:
        start = context.find(found[0])
    return (start, start + len(found[0])) if start >= 0 else None


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why an example cannot be used."""
    if 'answers' not in fields:
        return None
    found = references(fields)
    if any(not text.strip() for text in found):
        return 'an answer is empty'
    return 'the answer is not in the context' if found and span(fields) is None else None


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the answer to be written."""
    return next(iter(references(fields)), UNANSWERABLE)


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns exact_match and f1 in percent."""
    answers = ['' if each.text.strip() == UNANSWERABLE else each.text for each in predictions]
    expected = [references(example.fields) for example in examples]
    metrics = {'exact_match': squad.exact_match, 'f1': squad.f1}
    return {
        name: bootstrap.mean(np.array([100 * metric(*pair) for pair in zip(answers, expected, strict=True)]))
        for name, metric in metrics.items()
    }


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The most frequent answer for every question."""
    most = collections.Counter(answer(example.fields) for example in training).most_common(1)[0][0]
    return f'always {most!r}', [Prediction(most)] * len(examples)
