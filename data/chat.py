"""Messages to a prompt: the Jinja templates of published chat models, rendered as transformers does."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from configs.errors import UserError
from data import tokenizer_files


def render(
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    origin: str,
) -> str:
    """Returns the text of `messages`, up to where the assistant's answer begins.

    Args:
      template: Jinja source, run in a sandbox, for it comes from strangers.
      messages: {'role': …, 'content': …} each; keys whose value is None are left out.
      special_tokens: what the template knows as bos_token, eos_token and so on.
      origin: where the tokenizer comes from, for messages.

    Raises UserError when there is no template, and when it is broken or refuses the messages.
    """
    if template is None:
        raise UserError(
            f'{origin} has no chat template, so messages cannot become a prompt. Give a plain prompt, or put '
            "the model's chat_template.jinja beside its tokenizer."
        )
    present = [{key: value for key, value in message.items() if value is not None} for message in messages]
    roles = [message.get('role') for message in present]
    try:
        return (
            _environment()
            .from_string(template)
            .render(
                messages=present, tools=None, documents=None, add_generation_prompt=True, **special_tokens
            )
        )
    except (TemplateError, TypeError) as error:
        raise UserError(
            f'the chat template of {origin} does not take messages of the roles {roles}: {error}. Give '
            'them in the order that it expects, or mend the template.'
        ) from error


def find_template(files: Mapping[str, bytes], origin: str) -> str | None:
    """Returns the template in the files of a tokenizer, the default one of several; None if there is none."""
    if 'chat_template.jinja' in files:
        return tokenizer_files.text(files, 'chat_template.jinja', origin)
    template = tokenizer_files.parse(files, 'tokenizer_config.json', origin).get('chat_template')
    if isinstance(template, list):
        return next((each['template'] for each in template if each['name'] == 'default'), None)
    return template


class _Generation(Extension):
    """Lets templates mark the assistant's words with {% generation %}, which changes nothing here."""

    tags: ClassVar[set[str]] = {'generation'}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(('name:endgeneration',), drop_needle=True), lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters['tojson'] = _to_json
    environment.globals['raise_exception'] = _raise
    environment.globals['strftime_now'] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Jinja's own filter escapes HTML, which a prompt is not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise TemplateError(message)
