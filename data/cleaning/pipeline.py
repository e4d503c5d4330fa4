"""The steps that a config asks for, one after another: every document comes out clean, or is dropped.

First the steps that change a text, in a circle until none of them changes it any more: what one of them
makes may be for another to mend, such as a reference that stands for a control character. So a text
that has been cleaned stays as it is when it is cleaned again. Then the filters, which see what would be kept.

Of a pair, both texts are changed, and what judges texts sees the input alone: it is made for documents, not
for answers of a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from data.cleaning import block_list, contamination, languages, markup, personal, quality, repair, repetition
from data.cleaning.steps import Dropped, Step
from data.cleaning.tally import Tally
from data.documents import Document, byte_size

MOST_ROUNDS = 8  # of the circle; three settle every text seen so far
STOP_WORDS_KNOWN = {'en', 'zh'}


class Pipeline:
    """The steps of `settings`, as configs.cleaning.resolve returns them; false if there are none."""

    def __init__(self, settings: dict):
        self.changes = list(_changes(settings))
        self.filters = list(_filters(settings))

    def __bool__(self) -> bool:
        return bool(self.changes or self.filters)

    def clean(
        self,
        documents: Iterable[Document],
        tally: Tally | None = None,
        removed: Callable[[dict], None] | None = None,
    ) -> Iterator[Document]:
        """Yields the documents that are kept, as they are to be, and counts into `tally`.

        removed: is called with {id, step, reason, detail} of each document that is dropped.
        """
        tally = Tally() if tally is None else tally
        for step in [*self.changes, *self.filters]:
            tally.step(step.name)  # so that the report has all, in their order
        for document in documents:
            size = document.size()
            tally.documents += 1
            tally.size += size
            cleaned, step = self.apply(document, size, tally) if self else (document, '')
            if isinstance(cleaned, Document):
                yield cleaned
            elif removed:
                removed({'id': document.id, 'step': step, 'reason': cleaned.reason, 'detail': cleaned.detail})

    def hide(self, text: str) -> str:
        """Returns `text` without the personal data that is replaced, for examples."""
        for step in self.changes:
            text = str(step.apply(text)) if step.placeholder else text
        return text

    def apply(self, document: Document, size: int, tally: Tally) -> tuple[Document | Dropped, str]:
        """Returns the document as it is to be, or why it is dropped and by which step."""
        changed: set[str] = set()
        texts = []
        answer = [step for step in self.changes if not step.judges]
        both = [(document.text, self.changes), (document.target, answer)]
        for text, steps in both if document.target else both[:1]:
            settled, size, step = self._settle(steps, document.id, text, size, tally, changed)
            if isinstance(settled, Dropped):
                break
            texts.append(settled)
        for name in changed:
            tally.steps[name].changed += 1
        if isinstance(settled, Dropped):
            tally.steps[step].drop(document.id, text, size, settled, self.hide)
            return settled, step
        for each in self.filters:
            result = each.apply(texts[0])
            if isinstance(result, Dropped):
                tally.steps[each.name].drop(document.id, texts[0], size, result, self.hide)
                return result, each.name
        return Document(document.id, *texts) if changed else document, ''

    def _settle(
        self, steps: Sequence[Step], identifier: str, text: str, size: int, tally: Tally, changed: set[str]
    ) -> tuple[str | Dropped, int, str]:
        """Changes the text until no step does so; returns it, the document's bytes, the step that drops."""
        unchanged = 0
        for at in range(MOST_ROUNDS * len(steps)):
            step = steps[at % len(steps)]
            result = step.apply(text)
            if isinstance(result, Dropped):
                return result, size, step.name
            if result == text:
                unchanged += 1
                if unchanged == len(steps):
                    break
                continue
            counted = tally.steps[step.name]
            counted.change(step, identifier, text, result, self.hide)
            difference = byte_size(result) - byte_size(text)
            counted.difference += difference
            size += difference
            changed.add(step.name)
            text, unchanged = result, 0
        if not text and steps:
            return Dropped('nothing is left'), size, steps[-1].name
        return text, size, ''


def _changes(settings: dict) -> Iterator[Step]:
    """Yields the steps that change texts; those first that decide what the others see."""
    if settings.get('invalid_utf8'):
        yield Step('invalid_utf8', repair.replace_invalid)
    if settings.get('controls'):
        yield Step('controls', repair.remove_controls)
    if settings.get('unicode'):
        yield Step('unicode', partial(repair.normalize, settings['unicode']))
    if settings.get('markup'):
        yield Step('markup', markup.remove_markup)
    if settings.get('simplified'):
        yield Step('simplified', repair.simplify)
    if settings.get('white_space'):
        yield Step('white_space', repair.tidy_white_space)
    if settings.get('c4'):
        yield Step('c4', quality.c4_lines, judges=True)
    yield from (step for name, step in personal.KINDS.items() if name in settings.get('personal', ()))


def _filters(settings: dict) -> Iterator[Step]:
    """Yields the filters, the quick ones first: what is dropped by one is not seen by the next."""
    if settings.get('min_characters') or settings.get('max_characters'):
        bounds = (settings.get('min_characters', 0), settings.get('max_characters', 0))
        yield Step('length', partial(quality.bound_length, *bounds))
    if settings.get('max_symbols'):
        yield Step('symbols', partial(quality.bound_symbols, settings['max_symbols']))
    if settings.get('block_list'):
        yield Step('block_list', partial(block_list.hold_none, settings['block_list']))
    if settings.get('gopher_quality'):
        ask = STOP_WORDS_KNOWN.issuperset(settings.get('languages', ('any',)))
        yield Step('gopher_quality', partial(quality.gopher_quality, ask))
    if settings.get('gopher_repetition'):
        yield Step('gopher_repetition', repetition.gopher_repetition)
    if settings.get('languages'):
        wanted = tuple(settings['languages'])
        yield Step('language', partial(languages.in_languages, wanted, settings['language_confidence']))
    if settings.get('evaluation_files'):
        yield contamination.step(settings['evaluation_files'], settings['evaluation_ngram'])
