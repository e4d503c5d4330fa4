"""Says of a run, before it: whether it fits, how fast it can be at best and why, and what it will cost.

  python plan.py --config=configs/llama.py:7b --topology=v5e:16x16 [--tokens=1e11 --price=1.2]
  python plan.py --config=configs/llama.py:7b --topology=v5e:16x16 --mesh=auto
  python plan.py --flops=1e21 | --hours=100 --topology=v5p:4x4x4 [--tokens=1e11]
  python plan.py --runs='runs/*' [--flops=1e21]

The first compiles the real training step for TPUs that need not be there (pip install -r
requirements-tpu.txt), or without --topology for this machine's devices, and reports memory, operations, what
devices send each other, and the least time of a step. The second tries meshes, parts of the batch and
rematerialisation, and ranks them. The third proposes a model's size and its tokens by published scaling laws,
the fourth by a law of your own runs. Results are kept: asked again, the answer is immediate.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from configs import command_line
from configs.errors import UserError

TOPOLOGY = flags.DEFINE_string('topology', None, "Slice of TPUs such as v5e:16x16; none: this machine's.")
MESH = flags.DEFINE_enum('mesh', 'config', ['config', 'auto'], "'auto' looks for the best.")
CANDIDATES = flags.DEFINE_integer('candidates', 4, 'Layouts that --mesh=auto compiles.', lower_bound=1)
TOKENS = flags.DEFINE_float('tokens', None, "Tokens of the whole run; none: num_steps' of the config.")
PRICE = flags.DEFINE_float(
    'price', None, 'Dollars for a chip and hour; needs --tokens, the length of the run.', lower_bound=0
)
HOURS = flags.DEFINE_float('hours', None, 'Time that may be spent on --topology, to size a model for.')
FLOPS = flags.DEFINE_float('flops', None, 'Operations that may be spent, to size a model for.')
MFU = flags.DEFINE_float(
    'mfu', 0.4, 'Share of the peak that --hours are expected to reach.', lower_bound=0, upper_bound=1
)
RUNS = flags.DEFINE_string('runs', None, "Finished runs, such as 'runs/*', to fit a scaling law to.")
JSON = flags.DEFINE_bool('json', False, 'Print JSON instead of tables.')
PICTURE = flags.DEFINE_string('picture', None, 'File for a picture of the plan, such as plan.png.')
FRESH = flags.DEFINE_bool('fresh', False, 'Compile again what was kept.')
command_line.define_config()


def main() -> int:
    """Makes the plan that the flags ask for; returns the exit status, 1 for a run that does not fit."""
    for flag in (TOKENS, HOURS, FLOPS, MFU):
        if flag.value is not None and flag.value <= 0:
            raise UserError(f'--{flag.name}={flag.value} must be above 0.')
    if PRICE.value is not None and TOKENS.value is None:
        raise UserError(f'--price={PRICE.value} needs to know for how long: add --tokens=1e11, say.')
    command_line.check_output('picture', PICTURE.value)
    if PICTURE.value and not PICTURE.value.endswith(('.png', '.pdf', '.svg')):
        raise UserError(f'--picture={PICTURE.value} must end in .png, .pdf or .svg.')
    from planning import topologies

    topology = topologies.parse(TOPOLOGY.value) if TOPOLOGY.value else None
    config = flags.FLAGS.config
    if config is None:
        for flag in (MESH, PRICE, PICTURE):
            if flag.value != flag.default:
                raise UserError(
                    f'--{flag.name}={flag.value} is for the plan of a run, which --config names; add that, '
                    f'or leave --{flag.name} out.'
                )
        if FLOPS.value is not None and HOURS.value is not None:
            raise UserError('--flops and --hours are two budgets; leave one of them out.')
        return size_model(topology)
    for flag in (HOURS, FLOPS, RUNS):
        if flag.value is not None:
            raise UserError(f'--{flag.name} sizes a model, and --config has one: leave one of them out.')
    return plan_run(config, topology)


def size_model(topology) -> int:
    """Proposes model sizes and tokens for a budget."""
    from rich.console import Console

    from planning import sizing

    fitted, runs = sizing.fit_runs(RUNS.value) if RUNS.value else (None, 0)
    operations, made = None, []
    if not RUNS.value or FLOPS.value is not None or HOURS.value is not None:
        operations = sizing.budget(FLOPS.value, HOURS.value, topology, MFU.value)
        made = sizing.proposals(operations, TOKENS.value, fitted)
    if JSON.value:
        print(json.dumps(sizing.to_dict(operations, made, fitted), indent=2))
    else:
        sizing.show(operations, made, fitted, runs, Console())
    return 0


def plan_run(config, topology) -> int:
    """Plans the run of a config: as it is, or in the best layout that is found."""
    from rich.console import Console

    from configs import experiment
    from planning import picture, report
    from planning.run import Planner, complete

    experiment.check(config)
    complete(config)
    name = next((a.split('=', 1)[1] for a in flags_given() if a.startswith('config=')), 'config')
    planner = Planner(config, name, topology, tokens=TOKENS.value, price=PRICE.value, fresh=FRESH.value)
    console = Console(stderr=JSON.value)
    if MESH.value == 'auto':
        ranked = planner.search(CANDIDATES.value, console)
        plans = [plan for _, plan in ranked if isinstance(plan, report.Plan)]
        if not plans:
            raise UserError('no layout could be compiled; the last error is above.')
        best = plans[0]
    else:
        ranked, best = [], planner.plan(console)
    if PICTURE.value:
        picture.draw(best, Path(PICTURE.value))
    if JSON.value:
        plans = [{'layout': label, **plan.to_dict()} for label, plan in ranked if not isinstance(plan, str)]
        print(json.dumps(best.to_dict() | ({'ranking': plans} if plans else {}), indent=2))
    else:
        report.show(best, console)
    return 0 if best.fits else 1


def flags_given() -> list[str]:
    """Returns the command line's flags without their dashes."""
    import sys

    return [argument.lstrip('-') for argument in sys.argv[1:]]


if __name__ == '__main__':
    command_line.run(main, __doc__ or '', needs_config=False)
