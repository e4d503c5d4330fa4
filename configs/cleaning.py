"""Presets of data.cleaning: the steps that documents go through; a key that is set overrides its preset's."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from configs.errors import UserError, choose

PERSONAL = ('secrets', 'emails', 'china_ids', 'card_numbers', 'us_ssns', 'ip_addresses', 'phones')
UNICODE_FORMS = ('', 'NFC', 'NFKC')
DUPLICATES = ('', 'exact', 'near')
# Keys that say how a step works, and matter only when it is on: key: the key that switches it on.
BELONGS_TO = {
    'language_confidence': 'languages',
    'evaluation_ngram': 'evaluation_files',
    'similarity': 'duplicates',
}

NONE: dict[str, Any] = {
    'invalid_utf8': False,
    'controls': False,
    'unicode': '',
    'markup': False,
    'simplified': False,
    'white_space': False,
    'personal': (),
    'c4': False,
    'min_characters': 0,
    'max_characters': 0,
    'max_symbols': 1.0,
    'gopher_quality': False,
    'gopher_repetition': False,
    'languages': (),
    'duplicates': '',
}
REPAIR = NONE | {'invalid_utf8': True, 'controls': True, 'unicode': 'NFC', 'white_space': True}
PRETRAINING = REPAIR | {
    'unicode': 'NFKC',
    'markup': True,
    'personal': PERSONAL,
    'min_characters': 100,
    'max_characters': 1_000_000,
    'max_symbols': 0.3,
    'gopher_quality': True,
    'gopher_repetition': True,
    'languages': ('en', 'zh'),
    'duplicates': 'near',
}
STRICT = PRETRAINING | {'simplified': True, 'c4': True}
PRESETS = {'none': NONE, 'repair': REPAIR, 'pretraining': PRETRAINING, 'strict': STRICT}


def resolve(config: ConfigDict) -> dict[str, Any]:
    """Returns {key: value} of the cleaning steps that are on, as JSON gives it back; {} if none is.

    Raises UserError for a value that is none.
    """
    section = config.data.cleaning
    settings = dict(PRESETS[choose('data.cleaning.preset', section.preset, PRESETS)])
    settings |= {key: section[key] for key in section if key != 'preset' and section[key] is not None}
    _check(settings)
    on = {key: value for key, value in settings.items() if value and (key not in NONE or value != NONE[key])}
    on = {key: value for key, value in on.items() if key not in BELONGS_TO or BELONGS_TO[key] in on}
    if on.get('duplicates') == 'exact':  # which has no use for it
        on.pop('similarity', None)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in on.items()}


def adopt(config: ConfigDict, settings: dict) -> None:
    """Sets the keys of data.cleaning so that they resolve to `settings`, what `resolve` returned."""
    values = {**base.get_config().data.cleaning.to_dict(), 'preset': 'none', **NONE, **settings}
    for key, value in values.items():
        config.data.cleaning[key] = tuple(value) if isinstance(value, list | tuple) else value


def check(config: ConfigDict) -> None:
    """Raises UserError for cleaning that cannot be, such as of duplicates in a stream."""
    if config.data.mode == 'stream' and 'duplicates' in resolve(config):
        raise UserError(
            "data.mode='stream' reads each document by itself, so no data.cleaning.duplicates are found. Set "
            "data.cleaning.duplicates='', or use data.mode='shards'."
        )


def _check(settings: dict[str, Any]) -> None:
    choose('data.cleaning.unicode', str(settings['unicode']), UNICODE_FORMS)
    choose('data.cleaning.duplicates', str(settings['duplicates']), DUPLICATES)
    for key, known in (('personal', PERSONAL), ('languages', None)):
        values = settings[key]
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise UserError(
                f"data.cleaning.{key}={values!r} must be a tuple of texts, such as ('en',) or ()."
            )
        for value in values:
            choose(f'data.cleaning.{key}', value, known or (value,))
    for key in ('min_characters', 'max_characters'):
        if settings[key] < 0:
            raise UserError(f'data.cleaning.{key}={settings[key]} is too small; it must be at least 0.')
    for key in ('max_symbols', 'language_confidence', 'similarity'):
        if not 0 < settings[key] <= 1:
            raise UserError(f'data.cleaning.{key}={settings[key]} must be above 0 and at most 1.')
    if settings['evaluation_ngram'] < 1:
        raise UserError(f'data.cleaning.evaluation_ngram={settings["evaluation_ngram"]} must be at least 1.')
