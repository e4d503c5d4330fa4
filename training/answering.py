"""What a model answers to a task's examples: classes, spans of a text, or texts that it writes.

B batch · L length · F texts in a row · C classes · N examples
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

import objectives
from model.decoding import Decoding
from model.transformer import Transformer
from objectives import classification, task_rows
from tasks import Prediction
from tasks.examples import Example
from tasks.framing import Framed, Framer, Unfit
from training.sampling import complete

NOTHING = Prediction('')


def answer(model: Transformer, params: Any, framer: Framer, examples: Sequence[Example]) -> list[Prediction]:
    """Returns a model's answer to each example, of which only what is asked is read.

    Every process gets all of them. What no row can be made of is answered with nothing. Texts are written by
    the likeliest token each time.
    """
    asked = [{name: example.fields[name] for name in framer.task.ASKED} for example in examples]
    objective = framer.config.objective
    if objective == 'classification':
        return _classes(model, params, framer, asked)
    if objective == 'span':
        return _spans(model, params, framer, asked)
    return _texts(model, params, framer, asked)


def _classes(
    model: Transformer, params: Any, framer: Framer, asked: Sequence[Mapping[str, Any]]
) -> list[Prediction]:
    config = framer.config
    framed = [framer.classed(fields) for fields in asked]
    packed = list(task_rows.pack(enumerate(framed), classification.row(config)))
    logits = _run(model, params, framer, framed, packed)
    probabilities_NC = np.zeros((len(asked), len(config.task.labels)))
    for numbers, logits_FC in zip(packed, logits, strict=True):
        logits_C = logits_FC[: len(numbers)].astype(np.float64)
        if config.task.multi_label:
            probabilities_NC[numbers] = 1 / (1 + np.exp(-logits_C))
        else:
            weights_C = np.exp(logits_C - logits_C.max(axis=1, keepdims=True))
            probabilities_NC[numbers] = weights_C / weights_C.sum(axis=1, keepdims=True)
    labels = config.task.labels
    if config.task.multi_label:
        texts = ['; '.join(sorted(np.array(labels, object)[each > 0.5])) for each in probabilities_NC]
    else:
        texts = [labels[number] for number in probabilities_NC.argmax(axis=1)]
    return [Prediction(text, each) for text, each in zip(texts, probabilities_NC, strict=True)]


def _spans(
    model: Transformer, params: Any, framer: Framer, asked: Sequence[Mapping[str, Any]]
) -> list[Prediction]:
    """The best span over all windows of a context; none if 'no answer' is likelier in every window."""
    windows, places, owners = [], [], []
    for number, fields in enumerate(asked):
        try:
            for tokens_T, types_T, spans_T2 in framer.marked_windows(fields):
                windows.append(Framed(tokens_T, types_T))
                places.append(spans_T2)
                owners.append(number)
        except Unfit:
            continue
    best: dict[int, tuple[float, str]] = {}
    nothing: dict[int, float] = {}
    packed = [[number] for number in range(len(windows))]
    for number, logits_2L in zip(
        range(len(windows)), _run(model, params, framer, windows, packed), strict=True
    ):
        owner, spans_T2 = owners[number], places[number]
        nothing[owner] = min(nothing.get(owner, np.inf), float(logits_2L[:, 0].sum()))
        score, start, end = best_span(logits_2L, spans_T2, framer.config.task.answer_tokens)
        if score > best.get(owner, (-np.inf, ''))[0]:
            context = asked[owner]['context']
            best[owner] = score, context[spans_T2[start, 0] : spans_T2[end, 1]]
    found = []
    for number in range(len(asked)):
        score, text = best.get(number, (-np.inf, ''))
        found.append(Prediction(text) if score > nothing.get(number, np.inf) else NOTHING)
    return found


def best_span(logits_2L: np.ndarray, spans_T2: np.ndarray, longest: int) -> tuple[float, int, int]:
    """Returns (score, first, last) of the likeliest span of at most `longest` tokens within the context."""
    size = len(spans_T2)
    inside = spans_T2[:, 1] > 0
    first = np.where(inside, logits_2L[0, :size], -np.inf)
    last = np.where(inside, logits_2L[1, :size], -np.inf)
    scores = first[:, None] + last[None, :]
    scores = np.where(np.tri(size, size, longest - 1, bool) & ~np.tri(size, size, -1, bool), scores, -np.inf)
    start, end = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[start, end]), int(start), int(end)


def _texts(
    model: Transformer, params: Any, framer: Framer, asked: Sequence[Mapping[str, Any]]
) -> list[Prediction]:
    """Texts that the model writes, longest questions first, so that those of a batch are about as long."""
    config, answers = framer.config, framer.config.task.answer_tokens
    both = not model.config.encoder_layers
    answers = min(answers, model.config.max_length - 2)
    room = model.config.max_length - answers if both else framer.room.inputs
    prompts: dict[int, np.ndarray] = {}
    for number, fields in enumerate(asked):
        try:
            prompts[number] = framer.question(fields, room)[0]
        except Unfit:
            continue
    order = sorted(prompts, key=lambda number: -len(prompts[number]))
    found = [NOTHING] * len(asked)
    for start in range(0, len(order), config.batch_size):
        numbers = order[start : start + config.batch_size]
        texts = complete(
            model, params, framer.tokenizer, [prompts[number] for number in numbers],
            Decoding(max_new_tokens=answers, temperature=0.0),
            key=jax.random.fold_in(jax.random.key(config.seed), start), with_prompt=False,
        )  # fmt: skip
        for number, text in zip(numbers, texts, strict=True):
            found[number] = Prediction(text.strip())
    return found


def _run(
    model: Transformer, params: Any, framer: Framer, framed: Sequence[Framed], packed: Sequence[Sequence[int]]
) -> Iterator[np.ndarray]:
    """Yields the logits of each row, computed batch by batch on all devices."""
    config, objective = framer.config, objectives.get(framer.config.objective)
    size = config.batch_size
    for start in range(0, len(packed), size):
        rows = [
            objective.lay_out([framed[number] for number in row], config)
            for row in packed[start : start + size]
        ]
        filled = rows + [np.zeros_like(rows[0])] * (size - len(rows))
        batch = objective.make_batch(np.stack(filled), config=config)
        yield from np.asarray(_logits(params, batch, model=model, name=config.objective))[: len(rows)]


@functools.partial(jax.jit, static_argnames=('model', 'name'))
def _logits(params: Any, batch: dict[str, jax.Array], *, model: Transformer, name: str) -> jax.Array:
    """Returns the logits of an objective, whole on every device."""
    logits = objectives.get(name).logits(model, params, batch)
    mesh = jax.sharding.get_abstract_mesh()
    return logits if mesh.empty else jax.lax.with_sharding_constraint(logits, PartitionSpec())
