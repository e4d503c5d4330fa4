"""Labels by a model: calibrated confidence, what is kept of them, and what a person should look at.

N examples · C classes
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.optimize import minimize_scalar

import tasks
from configs.errors import UserError
from parallel import mesh as meshes
from tasks import classification
from tasks import examples as labelled_examples
from tasks.examples import Example, Tally
from tasks.metrics.classification import calibration_error
from training import console, datasets
from training.answering import answer
from training.run import Run

TEMPERATURES = (0.05, 20.0)
FEWEST_TO_CALIBRATE = 20


@dataclasses.dataclass(frozen=True)
class Label:
    """What a teacher says of an example: float64 [C], the probability of each class."""

    example: Example
    label: str
    probabilities: np.ndarray

    @property
    def confidence(self) -> float:
        """The probability of the label."""
        return float(self.probabilities.max())


class Teacher:
    """A run trained for a task of classes, which labels texts. Raises UserError for another run or task."""

    def __init__(self, opened: Run, task: str, name: str, fields: str | None):
        self._task, config = tasks.get(task), opened.config
        if self._task.HEAD != 'classes':
            raise UserError(f'--task={task} has no classes; label.py labels for sentiment or classification.')
        if config.objective != 'classification' or config.task.name != task:
            raise UserError(
                f'--checkpoint={name} cannot label for --task={task}: a teacher is an encoder trained for a '
                f'task of classes, and this run has objective={config.objective!r}, '
                f'task.name={config.task.name!r}. Train one: train.py --config=configs/finetune.py:{task}.'
            )
        if config.task.multi_label:
            raise UserError(f'--checkpoint={name} has task.multi_label=True; labels are of one class each.')
        config.batch_size = meshes.fitting_batch(opened.mesh, config)
        self._opened, self._name, self._fields = opened, name, fields
        self.labels: tuple[str, ...] = config.task.labels
        self.temperature = 1.0
        self._framer = datasets.make_framer(self._task, config, opened.tokenizer)

    def calibrate(self, source: str | None) -> list[str]:
        """Sets the temperature by labelled examples, by default those held out; says what it did."""
        config = self._opened.config
        if source:
            examples = self._read(source, labelled=True)
        else:
            examples = labelled_examples.read_splits(self._task, config, Tally(), Tally())[1]
        examples = [e for e in examples if self._task.answer(e.fields) in self.labels]
        if len(examples) < FEWEST_TO_CALIBRATE:
            raise UserError(
                f'{len(examples)} labelled examples are too few to calibrate by; give at least '
                f'{FEWEST_TO_CALIBRATE} with --calibrate=FILE.'
            )
        truth_N = np.array([self.labels.index(self._task.answer(e.fields)) for e in examples])
        raw_NC = self._probabilities(examples)
        self.temperature = fit_temperature(raw_NC, truth_N)
        errors = [
            calibration_error(p.max(axis=1), (p.argmax(axis=1) == truth_N).astype(float))
            for p in (raw_NC, tempered(raw_NC, self.temperature))
        ]
        return [
            f'calibrated by {len(examples):,} examples: temperature {self.temperature:.2f}, expected '
            f'calibration error {errors[0]:.1f} % before and {errors[1]:.1f} % after'
        ]

    def label(self, source: str) -> list[Label]:
        """Returns a label for each example of `source`, in their order."""
        examples = self._read(source, labelled=False)
        probabilities_NC = tempered(self._probabilities(examples), self.temperature)
        best_N = probabilities_NC.argmax(axis=1)
        return [
            Label(example, self.labels[best], each)
            for example, best, each in zip(examples, best_N, probabilities_NC, strict=True)
        ]

    def record(self, label: Label) -> dict[str, Any]:
        """Returns what is written of a label: fields, label, confidence, and where it comes from."""
        meta = self._opened.meta
        return {
            **{name: label.example.fields[name] for name in self._task.ASKED},
            'label': label.label,
            'confidence': round(label.confidence, 6),
            'example': label.example.id,
            'labelled_by': {
                'checkpoint': self._name,
                'step': self._opened.step,
                'temperature': round(self.temperature, 4),
                **{
                    key: meta.get(key)
                    for key in ('data_fingerprint', 'tokenizer_fingerprint', 'code_version')
                },
            },
        }

    def doubtful_record(self, label: Label) -> dict[str, Any]:
        """Returns what is written of an example for a person to label."""
        pairs = zip(self.labels, label.probabilities.tolist(), strict=True)
        return {
            **{name: label.example.fields[name] for name in self._task.ASKED},
            'label': '',
            'example': label.example.id,
            'probabilities': {name: round(p, 6) for name, p in pairs},
        }

    def _read(self, source: str, *, labelled: bool) -> list[Example]:
        config = self._opened.config
        if self._fields is not None:
            config.task.fields = self._fields
        return labelled_examples.read(self._task, source, config, Tally(), labelled=labelled)

    def _probabilities(self, examples: Sequence[Example]) -> np.ndarray:
        answers = answer(self._opened.transformer, self._opened.params, self._framer, examples)
        return np.array([each.probabilities for each in answers], np.float64)


def tempered(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the softmax of log p / temperature."""
    logits_NC = np.log(np.maximum(probabilities_NC, 1e-30)) / temperature
    weights_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return weights_NC / weights_NC.sum(axis=1, keepdims=True)


def fit_temperature(probabilities_NC: np.ndarray, truth_N: np.ndarray) -> float:
    """Returns the temperature with the least cross-entropy to the true classes (Guo et al. 2017).

    The truth has 1 of N + 2 shares of doubt (Platt 1999): few examples, none wrong, make no certainty.
    """
    size, classes = probabilities_NC.shape
    targets_NC = np.full((size, classes), 1 / (size + 2) / max(classes - 1, 1))
    targets_NC[np.arange(size), truth_N] = (size + 1) / (size + 2)

    def loss(log_temperature: float) -> float:
        p_NC = tempered(probabilities_NC, np.exp(log_temperature))
        return float(-(targets_NC * np.log(np.maximum(p_NC, 1e-30))).sum(axis=1).mean())

    result: Any = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method='bounded')
    return float(np.exp(result.x))


def choose(
    labels: Sequence[Label], least: float, *, balance: bool = False, per_class: int | None = None
) -> list[Label]:
    """Returns those of at least this confidence, in order; of each class the `per_class` most confident ones.

    Balanced, as many of each class as there are of the rarest. Raises UserError if there is one class alone.
    """
    by_class = collections.defaultdict(list)
    for label in labels:
        if label.confidence >= least:
            by_class[label.label].append(label)
    if balance and len(by_class) == 1:
        [(name, group)] = by_class.items()
        raise UserError(
            f'all {len(group):,} labels of at least {least} are {name!r}, so there is nothing '
            'to balance them with; lower --min_confidence, leave --balance out, or train the teacher longer.'
        )
    limits = [] if per_class is None else [per_class]
    if balance and by_class:
        limits.append(min(map(len, by_class.values())))
    kept = {
        id(label)
        for group in by_class.values()
        for label in sorted(group, key=lambda each: -each.confidence)[: min(limits, default=None)]
    }
    return [label for label in labels if id(label) in kept]


def least_certain(labels: Sequence[Label], count: int) -> list[Label]:
    """Returns the `count` of the smallest margin between the two likeliest classes (Scheffer et al. 2001)."""

    def margin(label: Label) -> float:
        second, first = np.sort(label.probabilities)[-2:]
        return float(first - second)

    return sorted(labels, key=margin)[:count]


def table(labels: Sequence[Label], chosen: Sequence[Label], classes: Sequence[str]) -> Table:
    """Returns the yield by class, and agreement with labels that the examples had already."""
    rows = []
    kept = {id(label) for label in chosen}
    for name in (*classes, 'all'):
        of_class = [label for label in labels if name in ('all', label.label)]
        mine = [label for label in of_class if id(label) in kept]
        confidence = f'{np.mean([label.confidence for label in mine]):.3f}' if mine else '-'
        agreements = (_agreement(each, classes) for each in (of_class, mine))
        rows.append((name, len(of_class), len(mine), confidence, *agreements))
    columns = ['class', 'labelled', 'kept', 'mean confidence', 'agreement', 'agreement of kept']
    return console.table('Labels', columns, rows)


def _agreement(labels: Sequence[Label], classes: Sequence[str]) -> str:
    """Returns how often labels are those that the examples had already, where they had one of `classes`."""
    answers = [
        (classification.answer(label.example.fields), label.label)
        for label in labels
        if 'label' in label.example.fields
    ]
    known = [own == said for own, said in answers if own in classes]
    return f'{np.mean(known):.1%}' if known else '-'
