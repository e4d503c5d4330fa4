"""Floating-point operations of a traced program: those of its matrix products, each as often as it runs.

Read from the jaxpr, before the compiler, so that scans count all of their iterations and what is computed
again in the backward pass counts again.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core


def count(jaxpr: Any) -> int:
    """Returns the operations of all devices together: 2 for each multiplication and addition of a product.

    Of a kernel (Pallas), all steps of its grid are counted, of branches the dearest.
    """
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == 'dot_general':
            total += _product(equation)
            continue
        inner = [count(each) for each in _inner(equation)]
        if name == 'cond':
            total += max(inner)
        else:
            total += sum(inner) * _repeats(equation)
    return total


def _inner(equation: Any) -> list[Any]:
    found = []
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                found.append(each.jaxpr)
            elif isinstance(each, core.Jaxpr):
                found.append(each)
    return found


def _repeats(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == 'scan':
        return parameters['length']
    if name == 'shard_map':  # shapes inside are those of a device, along its axes
        shape = dict(parameters['mesh'].shape)
        manual = parameters['newly_manual_axes']
        return math.prod(shape[axis] for axis in manual)
    if name == 'pallas_call':
        return math.prod(int(size) for size in parameters['grid_mapping'].grid)
    return 1


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params['dimension_numbers']
    first = equation.invars[0].aval
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(first.shape[d] for d in contracted)
