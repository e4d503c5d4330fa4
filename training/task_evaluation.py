"""A task's examples answered and scored by a checkpoint, with what that costs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from types import ModuleType

import jax

import tasks
from configs.errors import UserError
from parallel import memory
from parallel import mesh as meshes
from tasks import Prediction
from tasks import examples as labelled
from tasks.examples import Example, Tally
from tasks.metrics.bootstrap import Score
from training import datasets, scoring
from training.answering import answer
from training.run import Run


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is to be evaluated: a task, and where its examples are where a run does not know or differs."""

    task: str
    data: str | None = None  # None: what the run held out
    fields: str | None = None  # of task.fields
    language: str | None = None  # of task.language
    limit: int = 0  # examples at most; 0: all


@dataclasses.dataclass(frozen=True)
class Result:
    """What a checkpoint scores and costs; peak_memory in bytes, baseline: what it does, and its scores."""

    scores: dict[str, Score]
    examples: Sequence[Example]
    predictions: Sequence[Prediction]
    labels: tuple[str, ...]
    num_params: int
    examples_per_second: float
    peak_memory: int
    baseline: tuple[str, dict[str, Score]]
    notes: list[str]


def evaluate(opened: Run, choice: Choice, name: str) -> Result:
    """Answers and scores the examples; `name` is the checkpoint's, for messages."""
    task, config, tally = tasks.get(choice.task), opened.config, Tally()
    trained_for_it = config.task.name == choice.task
    if not trained_for_it and not choice.data:
        raise UserError(
            f'--checkpoint={name} was not trained for --task={choice.task}, so there is nothing that it held '
            'out; give --data=FILE.'
        )
    config.task.name = choice.task
    if choice.language is not None:
        config.task.language = choice.language
    training, examples = _examples(task, opened, choice, tally, trained_for_it, name)
    datasets.adopt(task, config, training)
    _check_head(opened, task, name)
    config.batch_size = meshes.fitting_batch(opened.mesh, config)
    framer = datasets.make_framer(task, config, opened.tokenizer)
    unknown = [e for e in examples if config.task.labels and _unknown(task, e, config.task.labels)]
    for example in unknown:
        tally.drop('its label is none of task.labels', example.id)
    tally.used -= len(unknown)
    examples = [example for example in examples if example not in unknown][: choice.limit or None]
    if not examples:
        raise UserError(f'no example is left to score: {"; ".join(tally.lines(name))}.')
    memory.reset_peak()
    answer(opened.transformer, opened.params, framer, examples[: config.batch_size])  # compiles
    started = time.perf_counter()
    predictions = answer(opened.transformer, opened.params, framer, examples)
    seconds = time.perf_counter() - started
    what, guesses = task.baseline(training, examples, config)
    return Result(
        scoring.score(framer, predictions, examples),
        examples,
        predictions,
        config.task.labels,
        sum(leaf.size for leaf in jax.tree.leaves(opened.params)),
        len(examples) / seconds,
        memory.peak(),
        (what, scoring.score(framer, guesses, examples)),
        tally.lines(name),
    )


def _examples(
    task: ModuleType, opened: Run, choice: Choice, tally: Tally, trained_for_it: bool, name: str
) -> tuple[list[Example], list[Example]]:
    """Returns (examples that the baseline learns from, examples to be scored)."""
    config = opened.config
    if not choice.data:
        return labelled.read_splits(task, config, Tally(), tally)
    reading = config.copy_and_resolve_references()
    if choice.fields is not None:
        reading.task.fields = choice.fields
    examples = labelled.read(task, choice.data, reading, tally)
    if trained_for_it:
        try:
            return labelled.read_splits(task, config, Tally(), Tally())[0], examples
        except UserError:  # its examples are not on this machine, and only the baseline needs them
            tally.change(
                'what the run learnt from is not there: the baseline is that of these examples', name
            )
    return examples, examples


def _unknown(task: ModuleType, example: Example, labels: Sequence[str]) -> bool:
    return any(label not in labels for label in task.labels(example.fields))


def _check_head(opened: Run, task: ModuleType, name: str) -> None:
    model, config = opened.transformer.config, opened.config
    if model.structure == 'encoder' and (
        (task.HEAD == 'classes' and model.num_classes != len(config.task.labels))
        or (task.HEAD == 'span' and not model.span_head)
    ):
        raise UserError(
            f'--checkpoint={name} is an encoder that has not learnt the task: it has no head for it. '
            f'Train it: train.py --config=configs/finetune.py:{config.task.name} '
            f'--config.initial_checkpoint={name}.'
        )
