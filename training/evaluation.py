"""Loss, perplexity and bits per byte on held-out text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
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
from parallel.mesh import global_array, local_rows
from training.step import make_eval_step


def batches(
    config: ConfigDict, objective: ModuleType, mesh: Mesh, loader: Loader, position: np.ndarray
) -> Iterator[tuple[dict[str, jax.Array], np.ndarray]]:
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
    """Evaluates parameters on the first `num_batches` batches of a loader (0: all), always the same ones."""

    def __init__(
        self,
        model: nn.Module,
        objective: ModuleType,
        config: ConfigDict,
        mesh: Mesh,
        loader: Loader,
        num_batches: int,
    ):
        self._args = (config, objective, mesh, loader, loader.initial_position())
        self._num_batches = num_batches or None
        token_bytes_V = jnp.asarray(loader.tokenizer.token_bytes(), jnp.float32)
        eval_step = make_eval_step(model, objective, config)

        @jax.jit
        def sums(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            result = eval_step(params, batch)
            if 'targets_BL' in batch:
                result['bytes'] = jnp.sum(token_bytes_V[batch['targets_BL']] * batch['weights_BL'])
            return result

        self._sums = sums

    def __call__(self, params: Any) -> dict[str, float]:
        """Returns eval/loss (nats a token), and for text eval/perplexity and eval/bits_per_byte."""
        totals: dict[str, float] = {}
        for batch, _ in islice(batches(*self._args), self._num_batches):
            for name, value in jax.device_get(self._sums(params, batch)).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        weight = totals.pop('weight', 0.0)
        if not weight:
            return {}
        size = totals.pop('bytes', 0.0)
        nll = totals.pop('nll', None)
        metrics = {f'eval/{name}': total / weight for name, total in totals.items()}
        if nll is not None:
            metrics['eval/perplexity'] = math.exp(min(nll / weight, 700.0))
            metrics['eval/bits_per_byte'] = nll / math.log(2) / size
        return metrics
