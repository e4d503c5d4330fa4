"""Loss, perplexity and bits per byte on held-out text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data.loader import Loader
from parallel import compiler
from parallel.mesh import global_array, local_rows
from training.step import make_eval_step


def batches(
    config: ConfigDict, objective: ModuleType, mesh: Mesh, loader: Loader, position: np.ndarray
) -> Generator[tuple[dict[str, jax.Array], np.ndarray]]:
    """Yields (global batch on the mesh, this process's data position after it), from `position` on."""
    rows = local_rows(mesh, config.batch_size)
    for rows_RT, after in loader.batches(position):
        seeds_R = row_seeds(config.seed, rows.start, position)
        batch = objective.make_batch(rows_RT, tokenizer=loader.tokenizer, config=config, seeds_R=seeds_R)
        yield (
            {name: global_array(mesh, local, rows, config.batch_size) for name, local in batch.items()},
            after,
        )
        position = after


def row_seeds(seed: int, first: int, position_RP: np.ndarray) -> np.ndarray:
    """Returns uint64 [R]: what is random in each row of a batch, whichever process makes it.

    Decided by the experiment's seed, the row's number in the global batch (`first` is that of row 0), and
    the position of the data before it.
    """
    digests = (
        hashlib.blake2b(np.array([seed, first + row, *at], np.int64).tobytes(), digest_size=8).digest()
        for row, at in enumerate(position_RP.tolist())
    )
    return np.frombuffer(b''.join(digests), '<u8')


class Evaluator:
    """Evaluates parameters on the first `num_batches` batches of loaders (0: all), always the same ones.

    loaders: by the names of their sources; one alone may have any.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: ModuleType,
        config: ConfigDict,
        mesh: Mesh,
        loaders: Mapping[str, Loader],
        num_batches: int,
    ):
        self._batches = {
            name: partial(batches, config, objective, mesh, loader, loader.initial_position())
            for name, loader in loaders.items()
        }
        self._num_batches = num_batches or None
        tokenizer = next(iter(loaders.values())).tokenizer
        token_bytes_V = jnp.asarray(tokenizer.token_bytes(), jnp.float32)
        eval_step = make_eval_step(model, objective, config)

        def sums(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            result = eval_step(params, batch)
            if 'targets_BL' in batch:
                result['bytes'] = jnp.sum(token_bytes_V[batch['targets_BL']] * batch['weights_BL'])
            return result

        self._sums = jax.jit(sums, compiler_options=compiler.options(mesh))

    def __call__(self, params: Any) -> dict[str, float]:
        """Returns eval/loss (nats a token), and for text eval/perplexity and eval/bits_per_byte.

        They are of all that is evaluated; of several sources, eval/NAME/loss and so on are of each.
        """
        totals: dict[str, float] = {}
        parts: dict[str, float] = {}
        for name, of_source in self._batches.items():
            part: dict[str, float] = {}
            for batch, _ in islice(of_source(), self._num_batches):
                _add(part, jax.device_get(self._sums(params, batch)))
            _add(totals, part)
            parts |= _scores(part, f'eval/{name}/')
        return _scores(totals, 'eval/') | (parts if len(self._batches) > 1 else {})


def _add(totals: dict[str, float], sums: Mapping[str, Any]) -> None:
    for name, value in sums.items():
        totals[name] = totals.get(name, 0.0) + float(value)


def _scores(sums: dict[str, float], prefix: str) -> dict[str, float]:
    """Returns metrics, with `prefix` before their names, from sums over batches; none of no tokens."""
    sums = dict(sums)
    weight = sums.pop('weight', 0.0)
    if not weight:
        return {}
    size = sums.pop('bytes', 0.0)
    nll = sums.pop('nll', None)
    metrics = {f'{prefix}{name}': total / weight for name, total in sums.items()}
    if nll is not None:
        metrics[f'{prefix}perplexity'] = math.exp(min(nll / weight, 700.0))
        metrics[f'{prefix}bits_per_byte'] = nll / math.log(2) / size
    return metrics
