"""The few labelled examples that every machine has, so that each task can be tried at once.

They are derived from what is installed: docstrings, the language reference, the names of places that the
phonenumbers library knows in two languages; or made of a handful of words. They show that a task works; to
learn something worth knowing, give task.source.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from configs.errors import choose
from data import python_docs

Records = Iterator[tuple[str, Mapping[str, Any]]]
SENTENCE = re.compile(r'[A-Z][A-Za-z ,\'-]{30,160}\.')
TYPED = re.compile(r'^(\w+) : (.{2,60})$', re.MULTILINE)  # numpydoc: 'axis : int, optional'
MOST = 4000  # examples of a kind

GOOD = ('delightful', 'splendid', 'superb', 'charming', 'excellent', 'gripping', 'lovely', 'memorable')
BAD = ('dreadful', 'dull', 'tedious', 'awful', 'clumsy', 'pointless', 'horrible', 'disappointing')
THINGS = ('film', 'book', 'meal', 'hotel', 'play', 'concert', 'lesson', 'journey', 'game', 'story')
FRAMES = (
    'The {thing} was {word} from beginning to end.',
    'What a {word} {thing}!',
    'I found this {thing} rather {word}.',
    'We went for the {thing}, and it turned out {word}.',
    'Everyone said that the {thing} would be {word}, and so it was.',
)


def records(name: str) -> Records:
    """Yields (id, record) of a built-in set; UserError with the choices if there is none of the name."""
    yield from SETS[choose('task.source', name, SETS)]()


def docstring_pairs() -> Records:
    """What a docstring says at length, and its first line."""
    for identifier, body, summary in python_docs.pairs():
        yield identifier, {'text': body, 'summary': summary}


def docstring_kinds() -> Records:
    """Whether a docstring is that of a module, a class, a function or a method."""
    for identifier, kind, _, text in itertools.islice(python_docs.functions(), MOST):
        yield identifier, {'text': text, 'label': kind}


def parameter_types() -> Records:
    """The type of a parameter, as the docstrings of packages in numpydoc's format state it.

    For every fifth docstring, a parameter of another one is asked for.
    """
    before, count = '', 0
    for identifier, _, name, text in python_docs.functions(of_packages=True):
        typed = TYPED.findall(text)
        if 'Parameters\n---' not in text or not typed or len(text) > 4000:
            continue
        parameter, kind = typed[len(text) % len(typed)]
        count += 1
        if count > MOST:
            return
        asked, answers = (
            parameter,
            [{'text': kind, 'answer_start': text.index(f'{parameter} : {kind}') + len(parameter) + 3}],
        )
        if count % 5 == 0 and not re.search(rf'\b{re.escape(before)}\b', text):
            asked, answers = before, []
        before = parameter
        question = f'Of what type is the parameter {asked} of {name}?'
        yield identifier, {'question': question, 'context': text, 'answers': answers}


def misspelt_sentences() -> Records:
    """Sentences of the language reference with one or two letters out of place, and as they were."""
    from pydoc_data.topics import topics

    seen = set()
    for name in sorted(topics):
        for match in SENTENCE.finditer(' '.join(topics[name].split())):
            sentence = match[0]
            if sentence not in seen:
                seen.add(sentence)
                record = {
                    'instruction': 'Correct the spelling.',
                    'text': _misspell(sentence),
                    'reply': sentence,
                }
                yield f'reference/{name}:{match.start()}', record


def _misspell(sentence: str) -> str:
    """Returns a sentence in which letters are swapped, doubled or left out; always the same ones."""
    rng = np.random.default_rng(list(sentence.encode()))
    words = sentence.split(' ')
    long_words = [at for at, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for at in rng.permutation(long_words)[: rng.integers(1, 3)]:
        word, place = words[at], int(rng.integers(1, len(words[at]) - 2))
        kind = rng.integers(3)
        swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        words[at] = (
            swapped,
            word[:place] + word[place:][:1] + word[place:],
            word[:place] + word[place + 1 :],
        )[kind]
    return ' '.join(words)


def documentation_chats() -> Records:
    """Someone asks for a docstring in one line, and then for the same in capital letters."""
    for identifier, body, summary in python_docs.pairs():
        messages = (
            ('user', f'Say in one line what this does:\n\n{body}'),
            ('assistant', summary),
            ('user', 'In capital letters, please.'),
            ('assistant', summary.upper()),
        )
        yield identifier, {'messages': [{'role': role, 'content': text} for role, text in messages]}


def place_names() -> Records:
    """Names of cities and provinces in English and Chinese."""
    from phonenumbers.geodata import GEOCODE_DATA

    pairs = {}
    for prefix, names in GEOCODE_DATA.items():
        if 'en' in names and 'zh' in names:
            pairs.setdefault(names['en'], (prefix, names['zh']))
    for english, (prefix, chinese) in pairs.items():
        yield prefix, {'source': english, 'target': chinese}


def opinions() -> Records:
    """Made sentences that speak well or ill of something."""
    for label, words in (('positive', GOOD), ('negative', BAD)):
        for number, (frame, thing, word) in enumerate(itertools.product(FRAMES, THINGS, words)):
            yield f'{label}/{number}', {'text': frame.format(thing=thing, word=word), 'label': label}


SETS: dict[str, Callable[[], Records]] = {
    'builtin:docstring-pairs': docstring_pairs,
    'builtin:docstring-kinds': docstring_kinds,
    'builtin:parameter-types': parameter_types,
    'builtin:misspelt-sentences': misspelt_sentences,
    'builtin:documentation-chats': documentation_chats,
    'builtin:place-names': place_names,
    'builtin:opinions': opinions,
}
