"""Checkpoints: written by Orbax in the background, verified when read."""

from __future__ import annotations

import errno
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy

from configs.errors import UserError
from training import best, offloading
from training.optimizer import parameter_name


class DamagedCheckpointError(Exception):
    """A checkpoint cannot be read, or what was read is not what was written."""


class Checkpoints:
    """The checkpoints of one run, `RUN/checkpoints/STEP`.

    Each holds `state` (any tree of arrays), `position` (where the data is to continue, int32 [B, P]) and
    `meta` (JSON). The newest `keep` stay, and the one that is best by `best_metric`; '': the newest alone.
    """

    def __init__(
        self, directory: Path, *, keep: int = 1, best_metric: str = 'eval/loss', read_only: bool = False
    ):
        def cost(metrics: Any) -> float:
            known = metrics and best_metric in metrics
            return best.cost(best_metric, metrics[best_metric]) if known else math.inf

        self._cost = cost
        policies: list[preservation_policy.PreservationPolicy] = [preservation_policy.LatestN(keep)]
        if best_metric:
            policies.append(
                preservation_policy.BestN(
                    get_metric_fn=cost, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self.directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                best_fn=cost,
                best_mode='min',
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step that is best by the metric, or None when none was measured by it."""
        step = self._manager.best_step()
        measured = step is not None and math.isfinite(self._cost(self._manager.metrics(step)))
        return step if measured else None

    def save(
        self, step: int, state: Any, position: jax.Array, meta: dict, metrics: dict | None = None
    ) -> None:
        """Starts writing a checkpoint; returns once the arrays may change again.

        `metrics` are the evaluation's, if there was one at this step. A failure to write, of this
        checkpoint or the one before, raises UserError; finished checkpoints are never touched.
        """
        if step in self._manager.all_steps():
            return
        meta = meta | {'arrays': describe(state)}
        with self._report_failure():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    position=ocp.args.PyTreeSave({'rows': position}),
                    meta=ocp.args.JsonSave(meta),
                ),
                metrics={k: v for k, v in (metrics or {}).items() if math.isfinite(v)} or None,
            )

    def wait(self) -> None:
        """Returns when the last checkpoint is safely on disk; raises UserError if it could not be written."""
        with self._report_failure():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Frees Orbax's threads."""
        self._manager.close()

    def meta(self, step: int) -> dict:
        """Returns the JSON that `save` stored at `step`."""
        with _report_damage(self.directory / str(step)):
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            return _on_every_process(lambda: self._manager.restore(step, args=args))['meta']

    def restore(
        self, step: int, abstract: Any, position: jax.ShapeDtypeStruct | None = None
    ) -> tuple[Any, Any]:
        """Reads arrays straight into the shardings of `abstract`, which may be a part of what was saved.

        Returns (state, position or None). Raises UserError when names or shapes are not those saved, and
        DamagedCheckpointError when the checkpoint cannot be read or its digests do not agree.
        """
        saved = self.meta(step)['arrays']
        _check_shapes(saved, abstract, self.directory / str(step))
        wanted = {'state': _restore_args(abstract)}
        if position is not None:
            wanted['position'] = _restore_args({'rows': position})
        with _report_damage(self.directory / str(step)):
            args = ocp.args.Composite(**wanted)
            restored = _on_every_process(lambda: self._manager.restore(step, args=args))
            for name, (_, digest) in describe(restored['state']).items():
                if digest != saved[name][1]:
                    raise ValueError(
                        f'{name} is not what was written: its digest is {digest}, not {saved[name][1]}'
                    )
        return restored['state'], None if position is None else restored['position']['rows']

    def set_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint to RUN/damaged; nothing is deleted. Every process must call it."""
        damaged = self.directory.parent / 'damaged'
        names = itertools.chain([f'{step}'], (f'{step}-{number}' for number in itertools.count(2)))
        target = next(damaged / name for name in names if not (damaged / name).exists())
        if jax.process_index() == 0:
            damaged.mkdir(exist_ok=True)
            (self.directory / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f'set aside {step}')
        self._manager.reload()
        return target

    @contextmanager
    def _report_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = _disk_error(error)
            if reason is None:
                raise
            raise UserError(
                f'the checkpoint could not be written to {self.directory}: {reason}. Finished checkpoints '
                f'are intact; make room and run the same command again to continue from the newest.'
            ) from error


def describe(tree: Any) -> dict[str, tuple[list[int], str]]:
    """Returns {name: (shape, digest)} of every array in `tree`.

    The digest is the sum of the array's 32-bit words, each times an odd number that depends on its
    place, modulo 2³². Integer sums do not depend on order, so it is the same on every mesh; a changed
    bit always changes it. It costs one pass over the memory, on the devices, where hashing the files
    would read them all back.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    digests = jax.device_get(_digests([leaf for _, leaf in leaves]))
    names = [_leaf_name(path) for path, _ in leaves]
    return {
        name: (list(leaf.shape), f'{int(digest):08x}')
        for name, (_, leaf), digest in zip(names, leaves, digests, strict=True)
    }


@jax.jit
def _digests(leaves: list[jax.Array]) -> list[jax.Array]:
    def digest(array: jax.Array) -> jax.Array:
        array = jax.device_put(array, offloading.DEVICE)  # optimizer state may lie on the host
        words = jax.lax.bitcast_convert_type(array, f'uint{8 * array.dtype.itemsize}').astype(jnp.uint32)
        place = jnp.zeros((), jnp.uint32)
        for axis, extent in enumerate(array.shape):
            place = place * jnp.uint32(extent) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)

    return [digest(leaf) for leaf in leaves]


def _restore_args(abstract: Any) -> ocp.args.PyTreeRestore:
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)


def _leaf_name(path: tuple) -> str:
    return parameter_name(tuple(getattr(entry, 'name', getattr(entry, 'idx', entry)) for entry in path))


def _check_shapes(saved: dict, abstract: Any, where: Path) -> None:
    wanted = {
        _leaf_name(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    wrong = [
        f'{name} is {saved[name][0] if name in saved else "absent"} there and {shape} here'
        for name, shape in wanted.items()
        if name not in saved or saved[name][0] != shape
    ]
    if wrong:
        raise UserError(
            f'{where} does not fit this config: {"; ".join(wrong[:3])}{" …" if len(wrong) > 3 else ""}. '
            f'Continue with the config of that run, or choose another --workdir.'
        )


@contextmanager
def _report_damage(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise every kind of exception on bad files.
        reason = ' '.join(str(error).split())[:300]
        raise DamagedCheckpointError(f'{where} is damaged ({type(error).__name__}: {reason})') from error


def _on_every_process(read: Callable[[], Any]) -> Any:
    """Returns what `read` returns, or raises on all processes where it raises on one.

    Otherwise one would go on to an older checkpoint while the rest wait for it at this one.
    """
    result, failure = None, None
    try:
        result = read()
    except Exception as error:
        failure = error
    if jax.process_count() > 1:
        succeeded = multihost_utils.process_allgather(np.array(failure is None))
        if failure is None and not succeeded.all():
            failure = OSError(f'process {int(np.argmin(succeeded))} could not read its part')
    if failure is not None:
        raise failure
    return result


def _disk_error(error: BaseException | None) -> str | None:
    """Returns why the disk refused if `error` or a cause of it says so, else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EROFS,
            errno.EACCES,
        ):
            return str(error)
        for sign in (
            'No space left',
            'Disk quota',
            'File too large',
            'Read-only file system',
            'Permission denied',
        ):
            if sign in str(error):
                return sign.lower()
        error = error.__cause__ or error.__context__
    return None
