"""Optimizer state in the hosts' memory, which an update brings to the devices layer by layer.

Between updates the moments need no device memory, and during one only what a layer has. They cross the link
between host and device twice in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import Sharding

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device
STACKS = ('encoder_blocks', 'blocks')  # of parameters, whose first axis is layers

# (gradients, optimizer state, parameters, whether to make the update) → (updates, optimizer state)
Update = Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]


def on_host(sharding: Sharding) -> Sharding:
    """Returns the same layout in the memory of the devices' hosts."""
    return sharding.with_memory_kind('pinned_host')


def by_layers(update: Update) -> Update:
    """Returns the update of a state whose moments lie in the hosts' memory, and stay there.

    What `update` does with a parameter may depend on its name and values, but on no other parameter.
    """

    def update_in_pieces(grads: Any, opt_state: Any, params: Any, make: jax.Array) -> tuple[Any, Any]:
        stacks = [name for name in STACKS if name in params]
        rest = [name for name in params if name not in stacks]

        of_rest = _move(_part(opt_state, rest), DEVICE)
        updates, new = update(_part(grads, rest), of_rest, _part(params, rest), make)
        states = [_move(new, HOST)]

        for stack in stacks:
            of_stack = _part(params, [stack])

            def update_layer(layer, carry, of_stack=of_stack):
                grads, opt_state = carry
                of_layer = _move(_layer(opt_state, layer), DEVICE)
                made, new = update(_layer(grads, layer), of_layer, _layer(of_stack, layer), make)
                return _put(grads, made, layer), _put(opt_state, _move(new, HOST), layer)

            num_layers = jax.tree.leaves(of_stack)[0].shape[0]
            first = (_part(grads, [stack]), _part(opt_state, [stack]))
            # Updates take the place of the gradients.
            made, new = jax.lax.fori_loop(0, num_layers, update_layer, first)
            updates |= made
            states.append(new)
        # What is no moment, such as the number of updates, is the same in all of them, and new in the first.
        return updates, _map(lambda *parts: {k: v for part in parts for k, v in part.items()}, *states)

    return update_in_pieces


# ---- Trees in which every dict is one of parameters, or of moments like them -------------------------------


def _map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Maps over a tree's dicts; other leaves stay as they are in the first."""
    return jax.tree.map(
        lambda node, *rest: function(node, *rest) if _is_dict(node) else node,
        *(tree, *others),
        is_leaf=_is_dict,
    )


def _is_dict(node: Any) -> bool:
    return isinstance(node, dict)


def _part(tree: Any, names: Iterable[str]) -> Any:
    return _map(lambda node: {name: node[name] for name in names if name in node}, tree)


def _move(tree: Any, space: Any) -> Any:
    return _map(lambda node: jax.device_put(node, space), tree)


def _layer(tree: Any, layer: jax.Array) -> Any:
    def at(leaf: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)

    return _map(lambda node: jax.tree.map(at, node), tree)


def _put(tree: Any, new: Any, layer: jax.Array) -> Any:
    def put(leaf: jax.Array, value: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(leaf, value, layer, 0)

    return _map(lambda node, values: jax.tree.map(put, node, values), tree, new)
