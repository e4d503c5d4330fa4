"""The process in which one step is compiled: a request as JSON comes in, the result goes out.

python -m planning.worker, started by planning/compilation.py.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import jax

from configs import experiment
from configs.errors import UserError
from planning import machine, topologies
from planning.step import compile_step


def main() -> int:
    """Answers the request on standard input; returns the exit status, 2 for a user's mistake."""
    request = json.load(sys.stdin)
    if request['config'] is None:
        chip = machine.chip('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
        found = {'platform': jax.default_backend(), 'devices': jax.device_count()}
        print(json.dumps(found | {'chip': dataclasses.asdict(chip)}))
        return 0
    config = experiment.from_dict(request['config'])
    try:
        if request['topology']:
            topology = topologies.parse(request['topology'])
            step = compile_step(config, topology.devices(), 'tpu')
            chip = topology.chip
        else:
            step = compile_step(config, jax.devices(), jax.default_backend())
            chip = machine.chip(step.compute_dtype)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(json.dumps({'step': step.to_dict(), 'chip': dataclasses.asdict(chip)}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
