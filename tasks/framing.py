"""Examples as tokens: what a decoder, an encoder-decoder or an encoder reads of them, and is to answer.

T tokens
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs.errors import UserError
from data import records
from data.tokenizer import Tokenizer
from tasks.examples import Example, Tally

STRIDE = 0.5  # of the room for a context: how far windows over a long one lie apart
NO_ANSWER = np.zeros(0, np.int32)


class Unfit(Exception):
    """An example that no row can be made of; says why."""


@dataclass(frozen=True)
class Framed:
    """What a model reads of an example, and its answer.

    marks_T: of a decoder, 1 for tokens to be learnt; of an encoder, their types. answer: of an
    encoder-decoder its ids; of classes 1 + the number of the class, or with several 1 or 2 for each; of a
    span 1 + its first and 1 + its last position. In all of them 0 is: none.
    """

    tokens_T: np.ndarray
    marks_T: np.ndarray
    answer: np.ndarray = field(default_factory=lambda: NO_ANSWER)
    cropped: bool = False


class Room(NamedTuple):
    """How many tokens there are for what is read, and for the answer: of a decoder, both share `inputs`."""

    inputs: int
    answer: int


class Framer:
    """Makes tokens of a task's examples for one kind of model."""

    def __init__(
        self, task: ModuleType, tokenizer: Tokenizer, structure: str, config: ConfigDict, room: Room
    ):
        self.task, self.tokenizer, self.structure, self.config, self.room = (
            task, tokenizer, structure, config, room,
        )  # fmt: skip

    def frame(self, fields: Mapping[str, Any]) -> list[Framed]:
        """Returns what is learnt of an example: one, of a long context several windows. Raises Unfit."""
        if self.structure == 'encoder':
            return [self.classed(fields)] if self.task.HEAD == 'classes' else list(self.windows(fields))
        return [self.pair(fields) if self.structure == 'encoder_decoder' else self.dialogue(fields)]

    # --- Models that write --------------------------------------------------------------------------------

    def question(self, fields: Mapping[str, Any], room: int) -> tuple[np.ndarray, bool]:
        """Returns the ids of what a model is asked, of at most `room` tokens, and whether it was cropped."""
        if hasattr(self.task, 'turns'):
            messages = self.task.turns(fields, self.config)
            ids = self._chat(messages[:-1] if messages[-1][0] == 'assistant' else messages)
            if len(ids) > room:
                raise Unfit(f'the conversation is longer than the {room} tokens there are for it')
            return ids, False

        def encode(part: str) -> np.ndarray:
            return self._prompt(
                _fill(self.config.task.prompt or self.task.PROMPT, {**fields, self.task.LONG: part})
            )

        return _crop(encode, fields[self.task.LONG], room, self.tokenizer)

    def pair(self, fields: Mapping[str, Any]) -> Framed:
        """Returns inputs and targets for an encoder-decoder, each with its end."""
        answer = np.append(self.tokenizer.encode(self.task.answer(fields)), self.tokenizer.eos_id).astype(
            np.int32
        )
        if len(answer) > self.room.answer:
            raise Unfit(f'the answer is longer than the {self.room.answer} tokens there are for it')
        ids, cropped = self.question(fields, self.room.inputs)
        return Framed(ids, np.zeros(len(ids), np.int32), answer, cropped)

    def dialogue(self, fields: Mapping[str, Any]) -> Framed:
        """Returns question and answer as one text, of which a decoder learns the answers and their ends."""
        if hasattr(self.task, 'turns'):
            parts, cropped = list(self._replies(self.task.turns(fields, self.config))), False
        else:
            answer = np.append(self.tokenizer.encode(self.task.answer(fields)), self.tokenizer.eos_id)
            left = self.room.inputs - len(answer)
            if len(answer) > self.room.answer or left < 1:
                raise Unfit(f'the answer is longer than the {self.room.answer} tokens there are for it')
            asked, cropped = self.question(fields, left)
            parts = [(asked, 0), (answer, 1)]
        tokens_T = np.concatenate([ids for ids, _ in parts]).astype(np.int32)
        if len(tokens_T) > self.room.inputs:
            raise Unfit(f'the conversation is longer than the {self.room.inputs} tokens there are for it')
        marks_T = np.concatenate([np.full(len(ids), learnt, np.int32) for ids, learnt in parts])
        return Framed(tokens_T, marks_T, NO_ANSWER, cropped)

    def _replies(self, messages: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, int]]:
        """Yields (ids, whether they are learnt): all between two replies, then a reply and its end."""
        before = ''
        for number, (role, text) in enumerate(messages):
            if role != 'assistant':
                continue
            shown = self._render(messages[:number])
            if not shown.startswith(before):
                raise Unfit('the chat template changes what was said before')
            ids = self._encode_rendered(shown[len(before) :], first=not before)
            learnt_already = (
                before and len(ids) and ids[0] == self.tokenizer.eos_id
            )  # the end of the last reply
            yield ids[1:] if learnt_already else ids, 0
            yield np.append(self.tokenizer.encode(text), self.tokenizer.eos_id), 1
            before = shown + text

    def _render(self, messages: list[tuple[str, str]]) -> str:
        """Returns messages as one text by the tokenizer's chat template or, without one, with blank lines."""
        if self.tokenizer.chat_template is None:
            return ''.join(f'{text}\n\n' for _, text in messages)
        return self.tokenizer.apply_chat([{'role': role, 'content': text} for role, text in messages])

    def _encode_rendered(self, text: str, *, first: bool) -> np.ndarray:
        plain = self.tokenizer.chat_template is None
        return self.tokenizer.encode_prompt(text) if plain and first else self.tokenizer.encode(text)

    def _chat(self, messages: list[tuple[str, str]]) -> np.ndarray:
        if self.structure == 'encoder_decoder':
            return np.append(self.tokenizer.encode(self._render(messages)), self.tokenizer.eos_id)
        parts = [ids for ids, _ in self._replies([*messages, ('assistant', '')])]
        return np.concatenate(parts[:-1]).astype(np.int32)

    def _prompt(self, text: str) -> np.ndarray:
        if self.structure == 'encoder_decoder':
            return np.append(self.tokenizer.encode(text), self.tokenizer.eos_id).astype(np.int32)
        if self.tokenizer.chat_template is not None:
            return self._encode_rendered(self._render([('user', text)]), first=True)
        return self.tokenizer.encode_prompt(text + '\n')

    # --- Encoders -----------------------------------------------------------------------------------------

    def classed(self, fields: Mapping[str, Any]) -> Framed:
        """Returns begin · text · end, and its classes if the fields have any."""
        tokenizer = self.tokenizer
        ids = tokenizer.encode(fields[self.task.LONG])
        room = self.room.inputs - 2
        tokens_T = np.concatenate([[tokenizer.bos_id], ids[:room], [tokenizer.eos_id]]).astype(np.int32)
        answer = NO_ANSWER
        if 'label' in fields:
            known, labels = list(self.config.task.labels), self.task.labels(fields)
            strange = [label for label in labels if label not in known]
            if strange:
                raise Unfit(f'the label {strange[0]!r} is none of task.labels')
            if self.config.task.multi_label:
                answer = np.array([1 + (label in labels) for label in known], np.int32)
            elif len(labels) == 1:
                answer = np.array([1 + known.index(labels[0])], np.int32)
            else:
                raise Unfit('it has several labels; set task.multi_label=True')
        return Framed(tokens_T, np.zeros(len(tokens_T), np.int32), answer, len(ids) > room)

    def windows(self, fields: Mapping[str, Any]) -> Iterator[Framed]:
        """Yields begin · question · end · part of the context · end, over all of the context.

        The answer of a window that does not hold all of it is its first position, as where there is none.
        """
        wanted = self.task.span(fields) if 'answers' in fields else None
        for tokens_T, types_T, spans_T2 in self.marked_windows(fields):
            first = last = 0
            if wanted is not None:
                inside = (spans_T2[:, 0] < wanted[1]) & (spans_T2[:, 1] > wanted[0]) & (spans_T2[:, 1] > 0)
                at = np.flatnonzero(inside)
                if len(at) and spans_T2[at[0], 0] <= wanted[0] and spans_T2[at[-1], 1] >= wanted[1]:
                    first, last = int(at[0]), int(at[-1])
            yield Framed(tokens_T, types_T, np.array([first + 1, last + 1], np.int32))

    def marked_windows(
        self, fields: Mapping[str, Any]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields (tokens [T], types [T], characters of the context [T, 2], 0 for what is none of it)."""
        tokenizer = self.tokenizer
        question = tokenizer.encode(fields['question'])
        ids, spans = tokenizer.encode_with_spans(fields['context'])
        room = self.room.inputs - len(question) - 3
        if room < 8:
            raise Unfit(f'the question leaves no room for its context in {self.room.inputs} tokens')
        step = max(1, int(room * STRIDE))
        for start in range(0, max(1, len(ids) - room + step), step):
            part = slice(start, start + room)
            before = np.concatenate([[tokenizer.bos_id], question, [tokenizer.eos_id]])
            tokens_T = np.concatenate([before, ids[part], [tokenizer.eos_id]]).astype(np.int32)
            types_T = (np.arange(len(tokens_T)) >= len(before)).astype(np.int32)
            yield tokens_T, types_T, np.pad(spans[part], ((len(before), 1), (0, 0)))


def objective(task: ModuleType, name: str, structure: str) -> str:
    """Returns the objective by which a model of a structure learns a task; UserError if it cannot."""
    if structure == 'encoder' and task.HEAD:
        return {'classes': 'classification', 'span': 'span'}[task.HEAD]
    if structure == 'encoder_decoder':
        return 'seq2seq'
    if structure == 'decoder':
        return 'completion'
    raise UserError(
        f'task.name={name!r} is done by models that write, and model.structure={structure!r} does not; '
        'start from a decoder or an encoder-decoder.'
    )


def check_prompt(task: ModuleType, config: ConfigDict) -> None:
    """Raises UserError if task.prompt names what is no field of the question, or leaves one out."""
    named = records.IN_TEMPLATE.findall(config.task.prompt)
    if config.task.prompt and set(named) != set(task.ASKED):
        fields = ' '.join(f'{{{name}}}' for name in task.ASKED)
        raise UserError(f'task.prompt={config.task.prompt!r} must hold {fields}, and no other field.')


def _fill(template: str, fields: Mapping[str, Any]) -> str:
    return re.sub(records.IN_TEMPLATE, lambda match: str(fields[match[1]]), template.replace('\\n', '\n'))


def _crop(
    encode: Callable[[str], np.ndarray], text: str, room: int, tokenizer: Tokenizer
) -> tuple[np.ndarray, bool]:
    """Returns encode(text), or that of the longest beginning of the text found with at most `room` tokens."""
    ids = encode(text)
    if len(ids) <= room:
        return ids, False
    pieces = tokenizer.encode(text)
    keep = len(pieces) - (len(ids) - room)
    while keep > 0:
        ids = encode(tokenizer.decode(pieces[:keep]).rstrip('\ufffd'))
        if len(ids) <= room:
            return ids, True
        keep -= max(1, len(ids) - room)
    raise Unfit(f'all but the text to be cropped is longer than the {room} tokens there are for it')


def try_frame(framer: Framer, example: Example, tally: Tally) -> list[Framed]:
    """Returns the example framed, or nothing where it does not fit, which is counted."""
    try:
        framed = framer.frame(example.fields)
    except Unfit as reason:
        tally.drop(str(reason), example.id)
        tally.used -= 1
        return []
    if any(each.cropped for each in framed):
        tally.change('cropped to fit', example.id)
    return framed
