"""A plan as a table on the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from parallel.chips import Chip
from planning.collectives import Traffic
from planning.roofline import Roofline, roofline
from planning.step import Step


@dataclasses.dataclass(frozen=True)
class Plan:
    """A compiled step, its chip, and what the user asked to be told of it."""

    name: str  # of the experiment
    where: str  # topology, or this machine
    step: Step
    chip: Chip
    train_tokens: float  # of the whole run
    price: float | None  # dollars for a chip and hour
    suggestions: tuple[str, ...] = ()  # what would make it fit

    @property
    def roofline(self) -> Roofline:
        """The least time of a step."""
        return roofline(self.step, self.chip)

    @property
    def fits(self) -> bool:
        """Whether a device's memory holds the step."""
        return self.step.fits and self.step.peak <= self.chip.memory

    @property
    def hours(self) -> float:
        """The least time of the whole run."""
        return self.train_tokens / self.roofline.tokens_per_second / 3600

    @property
    def chips(self) -> float:
        """Chips, as they are sold."""
        return math.prod(self.step.mesh.values()) / self.chip.per_chip

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, bytes and seconds of one step and device, for JSON."""
        roof = self.roofline
        result: dict[str, Any] = {
            'config': self.name,
            'devices': self.where,
            'chip': dataclasses.asdict(self.chip),
            'step': self.step.to_dict(),
            'fits': self.fits,
            'suggestions': list(self.suggestions),
        }
        if self.step.fits:
            derived = ('seconds', 'interconnect', 'bound_by', 'tokens_per_second', 'mfu')
            result['roofline'] = dataclasses.asdict(roof) | {name: getattr(roof, name) for name in derived}
            result['run'] = {'tokens': self.train_tokens, 'hours': self.hours}
            if self.price is not None:
                result['run']['dollars'] = self.hours * self.chips * self.price
        return result


def show(plan: Plan, console: Console) -> None:
    """Prints a plan."""
    step, chip = plan.step, plan.chip
    mesh = ' × '.join(f'{axis}={size}' for axis, size in step.mesh.items() if size > 1) or 'one device'
    console.print(
        f'[bold]{plan.name}[/] on {plan.where}: {math.prod(step.mesh.values())} × {chip.name}, {mesh} · '
        f'{step.num_params:,} parameters · {step.compute_dtype} · steps of {step.tokens:,} tokens',
        highlight=False,
    )
    table = _table('On one device')
    table.add_row('parameters', size(step.parameters))
    where = ", in its host's memory" if step.host else ''
    table.add_row(f'optimizer state{where}', size(step.host or step.optimizer))
    table.add_row('batch', size(step.batch))
    table.add_row('activations, gradients, gathered weights', size(step.temporaries))
    verdict = 'fits' if plan.fits else '[bold red]does not fit[/]'
    share = f'{step.peak / chip.memory:.0%}'
    table.add_row('peak memory', f'[bold]{size(step.peak)}[/] of {size(chip.memory)} ({share}): {verdict}')
    console.print(table)
    if not step.fits:
        for suggestion in plan.suggestions:
            console.print(f'  {suggestion}', highlight=False)
        return
    _show_work(plan, console)
    _show_run(plan, console)
    for suggestion in plan.suggestions:
        console.print(f'  {suggestion}', highlight=False)


def _show_work(plan: Plan, console: Console) -> None:
    step, roof = plan.step, plan.roofline
    devices = math.prod(step.mesh.values())
    table = _table('In one step', 'amount', 'at least')
    again = f" ({step.flops / step.model_flops - 1:+.0%} to the model's {count(step.model_flops / devices)})"
    table.add_row('operations', f'{count(step.flops / devices)}{again}', time(roof.compute))
    table.add_row('memory, written and read once', size(step.least_moved), time(roof.memory))
    table.add_row('memory, as compiled', size(step.moved), f'({time(roof.memory_as_compiled)})')
    table.add_row('update, after all products', size(step.updated), time(roof.update))
    if step.host:
        table.add_row('from the host and back', size(2 * step.host), '')
    alike: dict[str, list[Traffic]] = {}
    for each in step.collectives:
        alike.setdefault(f'{each.kind} over {"+".join(each.axes)}, {each.dtype}', []).append(each)
    for label, several in list(alike.items())[:8]:
        table.add_row(f'{label}, {sum(each.count for each in several)} times', _sent(several), '')
    if step.collectives:
        table.add_row('all collectives', _sent(step.collectives), '')
    for axes, seconds in roof.links.items():
        table.add_row(f'links of {axes}', '', time(seconds))
    if roof.alone:
        table.add_row('what is sent alone', '', time(roof.alone))
    console.print(table)
    if step.unknown_loops:
        console.print(
            f'  {step.unknown_loops} loops of unknown length were taken to run once', style='yellow'
        )


def _sent(several: Sequence[Traffic]) -> str:
    payload, wire, alone = (sum(getattr(t, name) for t in several) for name in ('payload', 'wire', 'alone'))
    return f'{size(payload)}, {size(wire)} on the wire' + (f', {size(alone)} alone' if alone else '')


def _show_run(plan: Plan, console: Console) -> None:
    roof = plan.roofline
    table = _table('At best')
    table.add_row('step', f'{time(roof.seconds)}, bound by {roof.bound_by}')
    if plan.step.host:
        table.add_row('', f'beside what {size(2 * plan.step.host)} to the host and back take')
    table.add_row('tokens a second', f'{roof.tokens_per_second:,.0f}')
    table.add_row('MFU', f'{roof.mfu:.1%}')
    table.add_row(f'{count(plan.train_tokens)} tokens', f'{plan.hours:,.1f} hours')
    if plan.price is not None:
        cost = plan.hours * plan.chips * plan.price
        table.add_row('cost', f'${cost:,.0f} at ${plan.price} for a chip and hour')
    table.add_row('compiled in', f'{plan.step.compile_seconds:.0f} s')
    console.print(table)


def show_ranking(plans: list[tuple[str, Plan | str]], console: Console) -> None:
    """Prints plans of one run side by side, in the order given; a text stands for one that failed."""
    table = Table('mesh', 'parts', 'remat', 'peak', 'step', 'alone', 'bound by', 'MFU', box=None)
    for column in table.columns[3:]:
        column.justify = 'right'
    for label, plan in plans:
        cells = label.split(' · ')
        if isinstance(plan, str):
            table.add_row(*cells, 'failed', plan)
        elif not plan.fits:
            table.add_row(*cells, f'[red]{size(plan.step.peak)}[/]', 'does not fit')
        else:
            roof = plan.roofline
            rest = (time(roof.alone), roof.bound_by, f'{roof.mfu:.1%}')
            table.add_row(*cells, size(plan.step.peak), time(roof.seconds), *rest)
    console.print(table)


def _table(*titles: str) -> Table:
    table = Table(*titles, *[''] * (2 - len(titles)), box=None, title_justify='left', pad_edge=True)
    for column in table.columns[1:]:
        column.justify = 'right' if len(titles) > 2 and column is table.columns[-1] else 'left'
    return table


def size(number: float) -> str:
    """Returns bytes in GB or MB of powers of ten."""
    return f'{number / 1e9:,.2f} GB' if number >= 1e9 else f'{number / 1e6:,.1f} MB'


def count(number: float) -> str:
    """Returns a number with a prefix, such as 4.19 T."""
    for factor, prefix in ((1e15, ' P'), (1e12, ' T'), (1e9, ' G'), (1e6, ' M')):
        if number >= factor:
            return f'{number / factor:,.2f}{prefix}'
    return f'{number:,.0f}'


def time(seconds: float) -> str:
    """Returns seconds in s or ms."""
    return f'{seconds:,.2f} s' if seconds >= 1 else f'{seconds * 1e3:,.2f} ms'
