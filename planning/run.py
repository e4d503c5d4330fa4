"""The plan of one run: compiled as it is, or in the best of the layouts that its batch can have."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from configs import base
from configs.errors import UserError
from parallel import mesh as meshes
from parallel.chips import Chip
from planning import report
from planning.compilation import compile_all, describe_machine
from planning.report import Plan
from planning.topologies import Topology
from training import beginning, datasets

SUGGESTIONS = 4


@dataclasses.dataclass(frozen=True)
class Where:
    """Devices by their number, kind and wiring."""

    name: str
    platform: str
    devices: int
    chip: Chip
    sides: tuple[int, ...]
    slices: int = 1


def complete(config: ConfigDict) -> None:
    """Sets what train.py finds when it starts: a checkpoint's shape, and what a task's examples decide."""
    jax.config.update('jax_platforms', 'cpu')  # others are for the processes that compile
    one_device = meshes.make_mesh(base.get_config().mesh, jax.devices('cpu')[:1])
    begins = beginning.find_initial(config, one_device)
    if config.task.name:
        datasets.open_dataset(config, begins.tokenizer).training(slice(0, config.batch_size))


class Planner:
    """Plans a run on a topology, or with None on this machine.

    Args:
      config: the experiment, checked.
      name: what reports call it.
      tokens: of the whole run; None: those of num_steps.
      price: dollars for a chip and hour.
      fresh: compile again what was kept.
    """

    def __init__(
        self,
        config: ConfigDict,
        name: str,
        topology: Topology | None,
        *,
        tokens: float | None = None,
        price: float | None = None,
        fresh: bool = False,
    ):
        self._config, self._name, self._topology = config, name, topology
        self._tokens, self._price, self._fresh = tokens, price, fresh

    def plan(self, console: Console) -> Plan:
        """Compiles the run as it is; says what would make it fit if it does not."""
        with console.status('compiling …'):
            result = compile_all([self._config], self._topology, fresh=self._fresh)[0]
        if 'error' in result:
            raise RuntimeError(f'the compiler failed:\n{result["error"]}')
        plan = self._plan(self._config, result)
        if plan.fits:
            return plan
        return dataclasses.replace(plan, suggestions=self._suggestions(plan))

    def search(self, candidates: int, console: Console) -> list[tuple[str, Plan | str]]:
        """Compiles the most promising layouts and ranks them: (label, plan, or why it failed)."""
        from planning import search

        where = self._where()
        ranked = self._ranked(where)
        if not ranked:
            raise UserError(
                f'batch_size={self._config.batch_size} divides over no mesh of {where.devices} devices that '
                f'the model divides over too; use a multiple of {where.devices}.'
            )
        fitting = sum(estimated.memory <= search.ROOM * where.chip.memory for _, estimated in ranked)
        console.print(
            f'{len(ranked)} layouts of {self._config.batch_size} sequences over {where.devices} devices, '
            f'{fitting} of them fit by estimate',
            highlight=False,
        )
        chosen = [layout for layout, _ in search.promising(ranked, candidates)]
        configs = [search.apply(layout, self._config) for layout in chosen]
        labels = [_label(layout) for layout in chosen]

        def told(index: int, result: dict[str, Any], kept: bool) -> None:
            what = 'failed' if 'error' in result else 'known' if kept else 'compiled'
            console.print(f'  {what}: {labels[index]}', highlight=False)

        results = compile_all(configs, self._topology, fresh=self._fresh, told=told)
        plans: list[tuple[str, Plan | str]] = []
        for label, config, layout, result in zip(labels, configs, chosen, results, strict=True):
            if 'error' in result:
                plans.append((label, result['error'].splitlines()[-1][:200]))
                continue
            plan = self._plan(config, result)
            plans.append((label, dataclasses.replace(plan, suggestions=(search.flags(layout),))))
        plans.sort(key=lambda each: _order(each[1]))
        report.show_ranking(plans, console)
        if not any(isinstance(plan, Plan) and plan.fits for _, plan in plans):
            console.print('nothing fits; ' + '; '.join(self._larger(where)), style='bold red')
        return plans

    def _plan(self, config: ConfigDict, result: dict[str, Any]) -> Plan:
        from planning.step import Step

        step = Step.from_dict(result['step'])
        tokens = step.tokens * config.num_steps if self._tokens is None else self._tokens
        where = self._topology.name if self._topology else 'this machine'
        return Plan(self._name, where, step, Chip(**result['chip']), tokens, self._price)

    def _where(self) -> Where:
        if self._topology is not None:
            topology = self._topology
            return Where(
                topology.name, 'tpu', topology.num_devices, topology.chip, topology.sides, topology.slices
            )
        machine = describe_machine()
        count = machine['devices']
        return Where('this machine', machine['platform'], count, Chip(**machine['chip']), (count,))

    def _ranked(self, where: Where) -> list[tuple[Any, Any]]:
        from planning import search

        work = self._work(where.platform)
        blocks = self._config.model.vocab_blocks
        return search.rank(work, where.chip, where.sides, where.devices, blocks, where.slices)

    def _work(self, platform: str):
        import objectives
        from planning import search
        from planning.step import model_config, vocabulary

        config = self._config
        model = model_config(config, platform)
        return search.work(config, model, objectives.get(config.objective), vocabulary(config))

    def _suggestions(self, plan: Plan) -> tuple[str, ...]:
        """Returns what would make a plan fit, by estimate: on its own mesh, on others, on more."""
        from planning import search

        where = self._where()
        tried = plan.step.mesh, self._config.grad_accumulation, self._config.model.remat
        fitting = [
            (layout, estimated)
            for layout, estimated in self._ranked(where)
            if estimated.memory <= search.ROOM * where.chip.memory
            and (layout.mesh, layout.parts, layout.remat) != tried
        ]
        same = [each for each in fitting if each[0].mesh == plan.step.mesh]
        others = [each for each in fitting if each[0].mesh != plan.step.mesh]
        lines = [
            f'by estimate {report.size(estimated.memory)}: {search.flags(layout)}'
            for layout, estimated in (same[: SUGGESTIONS // 2] + others)[:SUGGESTIONS]
        ]
        return tuple(lines or self._larger(where))

    def _larger(self, where: Where) -> list[str]:
        """Returns what fits by estimate where no layout does here: moments on the host, or a larger slice."""
        from planning import search, topologies

        if self._topology is None:
            return ['no layout fits these devices by estimate; use a smaller model, or more devices.']
        work = self._work(where.platform)
        if not work.offload and self._config.optimizer.layer_decay == 1.0:
            offloaded = dataclasses.replace(work, offload=True)
            blocks = self._config.model.vocab_blocks
            best = search.rank(offloaded, where.chip, where.sides, where.devices, blocks, where.slices)[:1]
            if best and best[0][1].memory <= search.ROOM * where.chip.memory:
                return [
                    f"by estimate {report.size(best[0][1].memory)} with moments in the hosts' memory: "
                    f'--config.optimizer.offload=True {search.flags(best[0][0])}'
                ]
        for shape in topologies.shapes(self._topology.version):
            larger = topologies.parse(f'{self._topology.version}:{shape}')
            if larger.num_devices <= where.devices:
                continue
            ranked = search.rank(work, where.chip, larger.sides, larger.num_devices)
            if ranked and ranked[0][1].memory <= search.ROOM * where.chip.memory:
                return [f'by estimate it fits --topology={larger.name}: {search.flags(ranked[0][0])}']
        return [f'by estimate it fits no slice of {self._topology.version} with this batch.']


def _label(layout: Any) -> str:
    mesh = ' '.join(f'{axis}={size}' for axis, size in layout.mesh.items() if size > 1) or 'one device'
    return f'{mesh} · {layout.parts} · {layout.remat}'


def _order(plan: Plan | str) -> tuple[int, float, float]:
    """Those that fit by the least time, then by that without any overlap; then the others."""
    if isinstance(plan, str):
        return 2, math.inf, math.inf
    if not plan.fits:
        return 1, plan.step.peak, 0.0
    roof = plan.roofline
    return 0, round(roof.seconds, 5), roof.without_overlap
