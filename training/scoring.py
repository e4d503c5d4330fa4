"""A task's metrics on held-out examples, while a model trains and afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.transformer import Transformer
from tasks import Prediction
from tasks.examples import Example
from tasks.framing import Framer
from tasks.metrics.bootstrap import Score
from training.answering import answer

SHOWN = 5  # examples with their answers, in RUN/samples


class Scorer:
    """Scores parameters on examples: at most `task.eval_examples`, chosen by the seed, always the same."""

    def __init__(self, model: Transformer, framer: Framer, examples: Sequence[Example], notes: Sequence[str]):
        config = framer.config
        count = min(config.task.eval_examples or len(examples), len(examples))
        chosen = np.random.default_rng(config.seed).permutation(len(examples))[:count]
        self._model, self._framer = model, framer
        self.notes = [*notes, f'  {count:,} of them are scored']
        self._examples = [examples[number] for number in sorted(chosen)]

    def __call__(self, params: Any) -> tuple[dict[str, float], list[str]]:
        """Returns {'eval/METRIC': value}, and some examples with their answers."""
        predictions = answer(self._model, params, self._framer, self._examples)
        scores = score(self._framer, predictions, self._examples)
        texts = [show(self._framer, *each) for each in zip(predictions, self._examples, strict=True)]
        return {f'eval/{name}': value.value for name, value in scores.items()}, texts[:SHOWN]


def score(framer: Framer, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Score]:
    """Returns the task's metrics with their intervals."""
    return framer.task.score(predictions, examples, framer.config)


def show(framer: Framer, prediction: Prediction, example: Example) -> str:
    """Returns a question, its answer and the model's, for people."""
    asked = '\n'.join(str(example.fields[name])[:500] for name in framer.task.ASKED)
    return f'{asked}\n→ {prediction.text}\n  expected: {framer.task.answer(example.fields)}'
