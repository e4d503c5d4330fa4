"""What is learnt from: prepared or streamed text, or the labelled examples of a task."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import objectives
import tasks
from configs import experiment
from configs.errors import UserError
from data import loader, manifest, sentencepiece_tokenizer
from data.epochs import EpochLoader
from data.loader import Loader, Prefetched
from data.records import all_texts
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer
from model.families import FAMILIES
from objectives import task_rows
from tasks import examples as labelled
from tasks import framing
from tasks.examples import Example, Tally
from tasks.framing import Framed, Framer, Room
from training.scoring import Scorer


class Text:
    """Text that prepare.py wrote, or that is read as it comes."""

    def __init__(self, config: ConfigDict, tokenizer: Tokenizer | None):
        manifest.adopt_source(config)
        self._config, self._tokenizer = config, tokenizer

    def training(self, rows: slice) -> Loader:
        """Returns the batches to learn from; `rows` are those of this process."""
        return loader.load(self._config, split='train', rows=rows, tokenizer=self._tokenizer)

    def held_out(self, rows: slice, tokenizer: Tokenizer) -> dict[str, Loader]:
        """Returns {name of a source: its held-out batches}."""
        return loader.held_out(self._config, rows=rows, tokenizer=tokenizer)

    def scorer(self, model: Any) -> Scorer | None:
        """Returns None: a text has no answers to be scored."""
        return None


class Labelled:
    """The examples of task.source, held in memory; `config` gets what follows from them.

    That is task.labels, task.class_weights, the objective, the model's head, and num_steps for task.epochs.
    `examples` are those held out, to be scored.
    """

    def __init__(self, config: ConfigDict, tokenizer: Tokenizer | None):
        self.task = tasks.get(config.task.name)
        self._config, self._tally, self._eval_tally = config, Tally(), Tally()
        self.training_examples, self.examples = labelled.read_splits(
            self.task, config, self._tally, self._eval_tally
        )
        if not self.training_examples:
            raise UserError(
                f'task.source={config.task.source!r}: all {len(self.examples)} examples are held out; lower '
                'data.eval_fraction, or name task.eval_source.'
            )
        try:
            adopt(self.task, config, self.training_examples)
        except UserError as error:  # what was left out may be why
            told = '; '.join(line.strip() for line in self._tally.lines('training'))
            raise UserError(f'{error} ({told})') from error
        self._is_own = tokenizer is None and not config.tokenizer.path
        self.tokenizer = tokenizer or _tokenizer(config, self.training_examples)
        self.framer = make_framer(self.task, config, self.tokenizer)

    def training(self, rows: slice) -> Loader:
        """Returns the batches to learn from, and sets num_steps for task.epochs."""
        examples = self.training_examples
        unlabelled = self._unlabelled()
        copies = max(1, round(len(unlabelled) / (self._config.task.unlabelled_ratio * len(examples))))
        pool = [*examples * copies, *unlabelled]
        order = np.random.default_rng(self._config.seed).permutation(len(pool))
        framed = _frame(self.framer, [pool[number] for number in order], self._tally)
        made = self._loader(framed, rows, endless=True)
        if self._config.task.epochs:
            self._config.num_steps = math.ceil(self._config.task.epochs * (made.num_batches or 1))
            experiment.check(self._config)
        made.notes += self._tally.lines('training')
        if self._is_own and self.tokenizer.vocab_size < self._config.tokenizer.vocab_size:
            made.notes.append(
                f'  a tokenizer of {self.tokenizer.vocab_size:,} pieces: the examples support no more'
            )
        if not self._config.initial_checkpoint:
            made.notes.append('  the model begins at random; see initial_checkpoint')
        if unlabelled:
            made.notes.append(
                f'  {len(unlabelled):,} without a class, beside {copies} copies of each labelled one'
            )
        if self._config.task.labels:
            made.notes.append('  classes: ' + labelled.balance(self.task.answer(e.fields) for e in examples))
        return Prefetched(made)

    def _unlabelled(self) -> list[Example]:
        """Returns the texts of task.unlabelled without their classes, if they have any."""
        config = self._config
        if not config.task.unlabelled:
            if config.task.consistency:
                raise UserError(
                    f'task.consistency={config.task.consistency} is for texts without classes; name them '
                    'with --config.task.unlabelled=FILE.'
                )
            return []
        if config.objective != 'classification' or not config.task.consistency:
            raise UserError(
                f'task.unlabelled={config.task.unlabelled!r} is for an encoder that learns classes with '
                f'task.consistency above 0; here are objective={config.objective!r} and '
                f'task.consistency={config.task.consistency}.'
            )
        found = labelled.read(self.task, config.task.unlabelled, config, Tally(), labelled=False)
        asked = self.task.ASKED
        return [Example(each.id, {name: each.fields[name] for name in asked}) for each in found]

    def held_out(self, rows: slice, tokenizer: Tokenizer) -> dict[str, Loader]:
        """Returns the held-out examples' batches, by the name ''; the loss of these is evaluated."""
        if not self.examples:
            raise UserError('no example is held out; raise data.eval_fraction, or set eval_every=0.')
        framed = _frame(self.framer, self.examples, self._eval_tally)
        return {'': self._loader(framed, rows, endless=False)}

    def scorer(self, model: Any) -> Scorer | None:
        """Returns what scores answers to the held-out examples."""
        return Scorer(model, self.framer, self.examples, self._eval_tally.lines('held out'))

    def _loader(self, framed: Sequence[Framed], rows: slice, *, endless: bool) -> EpochLoader:
        config, objective = self._config, objectives.get(self._config.objective)
        if not framed:
            raise UserError(
                f'no example fits into sequence_length={config.sequence_length}; raise it, or look at what '
                f'the task is given: {"; ".join(self._tally.lines("training"))}.'
            )
        packed = list(task_rows.pack(enumerate(framed), objective.row(config)))
        rows_NT = np.stack([objective.lay_out([framed[number] for number in row], config) for row in packed])
        digest = hashlib.sha256(repr((config.seed, config.batch_size, endless)).encode())
        digest.update(rows_NT.tobytes())
        made = EpochLoader(
            rows_NT, tokenizer=self.tokenizer, fingerprint=digest.hexdigest(), batch_size=config.batch_size,
            part=rows, seed=config.seed, endless=endless, filler=0,
        )  # fmt: skip
        full = sum(len(each.tokens_T) for each in framed) / (len(rows_NT) * objective.row(config).tokens)
        made.notes.append(
            f'{len(framed):,} examples in {len(rows_NT):,} rows of {config.sequence_length} tokens, '
            f'{full:.0%} full'
        )
        return made


def open_dataset(config: ConfigDict, tokenizer: Tokenizer | None = None) -> Text | Labelled:
    """Returns what an experiment learns from; `tokenizer` is that of the model it starts from, if any."""
    return (Labelled if config.task.name else Text)(config, tokenizer)


def structure_of(config: ConfigDict) -> str:
    """Returns the structure of the experiment's model: 'decoder', 'encoder', …"""
    preset = FAMILIES.get(config.model.family, {})
    return config.model.structure or preset.get('structure', 'decoder')


def adopt(task: ModuleType, config: ConfigDict, training: Sequence[Example]) -> None:
    """Sets what the task decides: objective, head, classes and their weights. What is set already stays."""
    structure = structure_of(config)
    framing.check_prompt(task, config)
    config.objective = framing.objective(task, config.task.name, structure)
    if task.HEAD == 'classes' and not config.task.labels:
        several = config.task.multi_label
        found = {
            label
            for example in training
            for label in (task.labels(example.fields) if several else [task.answer(example.fields)])
        }
        config.task.labels = tuple(sorted(found))
        if len(found) < 2:
            raise UserError(f'task.source={config.task.source!r} has one class, {found}; two are the least.')
    if config.task.balance_classes and not config.task.class_weights:
        counts = [sum(task.answer(e.fields) == label for e in training) for label in config.task.labels]
        config.task.class_weights = tuple(
            len(training) / (len(counts) * count) if count else 0.0 for count in counts
        )
    if structure == 'encoder':
        config.model.num_classes = len(config.task.labels) if task.HEAD == 'classes' else 0
        config.model.span_head = task.HEAD == 'span'


def make_framer(task: ModuleType, config: ConfigDict, tokenizer: Tokenizer) -> Framer:
    """Returns what makes tokens of the task's examples for the experiment's model."""
    structure = structure_of(config)
    answer = config.target_length or config.sequence_length
    inputs = config.sequence_length
    room = Room(inputs, min(answer if structure == 'encoder_decoder' else inputs, config.task.answer_tokens))
    return Framer(task, tokenizer, structure, config, room)


def _frame(framer: Framer, examples: Iterable[Example], tally: Tally) -> list[Framed]:
    return [framed for example in examples for framed in framing.try_frame(framer, example, tally)]


def _tokenizer(config: ConfigDict, training: Sequence[Example]) -> Tokenizer:
    """Returns the tokenizer of tokenizer.path, or one trained on the examples' texts."""
    if config.tokenizer.path:
        return load_tokenizer(config.tokenizer.path)
    return sentencepiece_tokenizer.train(
        (text for example in training for text in all_texts(example.fields)),
        kind=config.tokenizer.kind,
        vocab_size=config.tokenizer.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
        control_symbols=config.tokenizer.control_symbols,
        at_most=True,
    )
