"""Texts out of records: lines of JSON, rows of tables.

A config key such as data.text_field names a field, 'meta.text' one within another, 'text|content'
whichever of several is there, and '{title}\\n\\n{body}' is a template of several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from configs.errors import did_you_mean
from data.damage import Damage

IN_TEMPLATE = re.compile(r'\{([^{}]+)\}')


def field_keys(config: ConfigDict) -> dict[str, str]:
    """Returns {config key: what it says} of the texts that a record of `config` is read for."""
    fields = {'data.text_field': config.data.text_field}
    if config.data.target_field:
        fields['data.target_field'] = config.data.target_field
    return fields


def names(specification: str) -> list[str]:
    """Returns the fields that a config key's value names."""
    if '{' in specification:
        return IN_TEMPLATE.findall(specification)
    return [name.strip() for name in specification.split('|')]


def texts(where: str, record: Mapping, fields: Mapping[str, str]) -> list[str]:
    """Returns the text for each of `fields`, {config key: what it says}; Damage if one is missing or none."""
    return [_text(where, record, key, specification) for key, specification in fields.items()]


def _text(where: str, record: Mapping, key: str, specification: str) -> str:
    if '{' in specification:
        filled = specification.replace('\\n', '\n')
        return IN_TEMPLATE.sub(lambda match: _field(where, record, key, match[1]), filled)
    choices = names(specification)
    present = next((name for name in choices if find(record, name) is not None), choices[0])
    return _field(where, record, key, present)


def _field(where: str, record: Mapping, key: str, name: str) -> str:
    value = find(record, name)
    if not isinstance(value, str):
        known = ', '.join(map(repr, record))
        problem = (
            f'no field {name!r}' if value is None and name not in record else f'no string in field {name!r}'
        )
        raise Damage(
            f'{where} has {problem}; its fields: {known or "none"}.{did_you_mean(name, record)} '
            f'Name the field with --config.{key}=NAME.'
        )
    return value


def find(record: Mapping, name: str) -> object:
    """Returns the value of a field, of 'a.b' the one of field b within field a; None if there is none."""
    if name in record:
        return record[name]
    outer, dot, inner = name.partition('.')
    nested = record.get(outer) if dot else None
    return find(nested, inner) if isinstance(nested, Mapping) else None


def all_texts(record: object) -> Iterable[str]:
    """Yields every text in a record, however deep."""
    if isinstance(record, str):
        yield record
    elif isinstance(record, Mapping):
        for value in record.values():
            yield from all_texts(value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from all_texts(value)
