"""Counting what cleaning does, so that documents and bytes add up, with a few examples of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from data.cleaning.steps import Dropped, Step

Hide = Callable[[str], str]
EXAMPLES = 3  # of a step, the first of the source
SHOWN = 80  # characters around what changed


@dataclass
class StepTally:
    """What one step did to the documents of one source.

    changed, dropped: documents; difference: bytes that were added to the changed ones (mostly below 0);
    dropped_bytes: as they were when they were dropped; items: placeholders put in; reasons: {why: documents}.
    """

    changed: int = 0
    dropped: int = 0
    difference: int = 0
    dropped_bytes: int = 0
    items: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: StepTally) -> None:
        """Adds what was counted after this."""
        for name in ('changed', 'dropped', 'difference', 'dropped_bytes', 'items'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons += other.reasons
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def change(self, step: Step, identifier: str, before: str, after: str, hide: Hide) -> None:
        """Counts what was put in by one change, and may keep it as an example.

        Documents and bytes are counted by the caller, once all rounds are over. hide: replaces what no
        example may show.
        """
        if step.placeholder:
            self.items += after.count(step.placeholder) - before.count(step.placeholder)
        if len(self.examples) < EXAMPLES and all(each['id'] != identifier for each in self.examples):
            self.examples.append({'id': identifier, **_difference(hide(before), hide(after))})

    def drop(self, identifier: str, text: str, size: int, why: Dropped, hide: Hide) -> None:
        """Counts a dropped document of `size` bytes."""
        self.dropped += 1
        self.dropped_bytes += size
        self.reasons[why.reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(
                {'id': identifier, 'reason': why.reason, 'text': _writable(hide(text)[: 2 * SHOWN])}
            )


@dataclass
class Tally:
    """What was read of one source and what its steps did, in their order.

    documents, size: as read, in bytes; damaged: pieces that could not be read, with what is wrong in
    the first few.
    """

    documents: int = 0
    size: int = 0
    damaged: int = 0
    damages: list[str] = field(default_factory=list)
    steps: dict[str, StepTally] = field(default_factory=dict)

    def step(self, name: str) -> StepTally:
        """Returns the tally of a step, made the first time."""
        return self.steps.setdefault(name, StepTally())

    def damage(self, problem: object) -> None:
        """Counts a piece of the source that could not be read."""
        self.damaged += 1
        self.damages = [*self.damages, str(problem)][:EXAMPLES]

    def add(self, other: Tally) -> None:
        """Adds what was counted of a later part of the source."""
        self.documents += other.documents
        self.size += other.size
        self.damaged += other.damaged
        self.damages = (self.damages + other.damages)[:EXAMPLES]
        for name, step in other.steps.items():
            self.step(name).add(step)

    def to_json(self) -> dict:
        """Returns what from_json reads."""
        steps = {name: {**vars(step), 'reasons': dict(step.reasons)} for name, step in self.steps.items()}
        return {**vars(self), 'steps': steps}

    @classmethod
    def from_json(cls, content: dict) -> Tally:
        """Returns the tally that to_json wrote."""
        steps = {
            name: StepTally(**{**step, 'reasons': Counter(step['reasons'])})
            for name, step in content['steps'].items()
        }
        return cls(**{**content, 'steps': steps})


def total(tallies: Iterable[Tally]) -> Tally:
    """Returns the sum of tallies, in their order."""
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result


def _difference(before: str, after: str) -> dict[str, str]:
    """Returns what stands around the first difference; of what was hidden in both only the text after."""
    shorter = min(len(before), len(after))
    first = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    if before == after:
        first = max(0, after.find('['))  # where a placeholder may be
    start = max(0, first - SHOWN // 2)
    shown = {'before': before, 'after': after} if before != after else {'after': after}
    return {name: _writable(text[start : start + SHOWN]) for name, text in shown.items()}


def _writable(text: str) -> str:
    """Returns `text` with what UTF-8 cannot spell spelt out."""
    return text.encode('utf-8', 'backslashreplace').decode()
