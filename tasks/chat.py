"""Conversations: every reply of the assistant is learnt, and the last one is written and scored."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tasks import Prediction
from tasks.examples import Example
from tasks.metrics import rouge, translation
from tasks.metrics.bootstrap import Score

FIELDS = {'messages': 'messages|conversations|conversation'}
ASKED = ('messages',)
LONG = None  # a conversation is not cropped
PROMPT = ''
HEAD = None
BEST = 'chrf'
BUILTIN = 'builtin:documentation-chats'
ROLES = {'human': 'user', 'gpt': 'assistant'}  # as ShareGPT calls them


def turns(fields: Mapping[str, Any], config: ConfigDict) -> list[tuple[str, str]]:
    """Returns (role, text) of each message."""
    found = []
    for message in fields['messages']:
        role = message.get('role', message.get('from', ''))
        found.append((ROLES.get(role, role), message.get('content', message.get('value', ''))))
    return found


def problem(fields: Mapping[str, Any]) -> str | None:
    """Returns why a conversation cannot be used."""
    messages = fields['messages']
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return 'messages is no list of messages'
    said = turns(fields, ConfigDict())
    if any(not isinstance(text, str) or not text.strip() for _, text in said):
        return 'a message is empty'
    return None if said and said[-1][0] == 'assistant' and len(said) > 1 else 'the last message is no reply'


def answer(fields: Mapping[str, Any]) -> str:
    """Returns the last reply."""
    return turns(fields, ConfigDict())[-1][1]


def score(
    predictions: Sequence[Prediction], examples: Sequence[Example], config: ConfigDict
) -> dict[str, Score]:
    """Returns chrf and rougeL of the last replies."""
    answers = [each.text.strip() for each in predictions]
    replies = [answer(example.fields) for example in examples]
    longest = {'rougeL': rouge.scores(answers, replies, config.task.language)['rougeL']}
    return {'chrf': translation.chrf(answers, replies)} | longest


def baseline(
    training: Sequence[Example], examples: Sequence[Example], config: ConfigDict
) -> tuple[str, list[Prediction]]:
    """The most frequent reply of the training conversations."""
    most = collections.Counter(answer(example.fields) for example in training).most_common(1)[0][0]
    return 'most frequent reply', [Prediction(most)] * len(examples)
