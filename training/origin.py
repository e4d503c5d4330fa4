"""Trained models as they are found: their experiment and tokenizer at once, their parameters when asked for.

A run of train.py, or a published model: everything that --checkpoint and initial_checkpoint take.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import experiment
from configs.errors import UserError
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer
from model.decoding import Decoding
from training import adapters, freezing, pretrained
from training.building import abstract_params, build_model
from training.checkpoint import Checkpoints, DamagedCheckpointError, describe
from training.pretrained import Published

RUN_DECODING = Decoding(temperature=0.8, top_k=50)


@dataclasses.dataclass(frozen=True)
class Origin(abc.ABC):
    """A model that has been found."""

    name: str  # by which this very one is found again: RUN@STEP
    directory: Path
    step: int
    config: ConfigDict  # its experiment
    meta: dict[str, Any]  # what its checkpoint says: step, fingerprints, versions, mesh
    tokenizer: Tokenizer
    decoding: Decoding  # how it writes where the user says nothing else

    @abc.abstractmethod
    def read(self, mesh: Mesh) -> Any:
        """Returns the parameters, float32, in their shards on a mesh; UserError if they are damaged."""

    @abc.abstractmethod
    def digest(self, params: Any) -> str:
        """Returns a SHA-256 (hex) that tells these parameters, which `read` gave, from all others."""


def find(checkpoint: str, *, pickles: bool = False) -> Origin:
    """Finds a model.

    Args:
      checkpoint: `RUN` (its best checkpoint, or the newest if none was evaluated), `RUN@STEP`, a directory in
        Hugging Face's format, its name on the hub, `hf:NAME` or `hf:NAME@REVISION`, or a GGUF file.
      pickles: read a published model's weights from pytorch_model.bin, which you trust.

    Raises:
      UserError: when there is no such thing, or it is damaged, or of a kind that Lathe does not know.
    """
    published = pretrained.find(checkpoint, pickles=pickles)
    if published is None:
        return _find_run(checkpoint)
    config = pretrained.experiment(published)
    return PublishedOrigin(
        checkpoint, published.path, 0, config, {}, published.tokenizer, published.decoding, published
    )


@dataclasses.dataclass(frozen=True)
class PublishedOrigin(Origin):
    """A model in Hugging Face's format, or a GGUF file."""

    published: Published

    def read(self, mesh: Mesh) -> Any:
        """Returns the parameters, float32, in their shards on a mesh; UserError if they are damaged."""
        model = build_model(self.config, self.tokenizer, mesh)
        return pretrained.load_params(self.published, abstract_params(model, mesh))

    def digest(self, params: Any) -> str:
        """Returns a SHA-256 (hex) that tells these parameters from all others."""
        return _sha256(describe(params))


@dataclasses.dataclass(frozen=True)
class RunOrigin(Origin):
    """One checkpoint of a run."""

    steps: list[int]  # all that the run keeps

    def read(self, mesh: Mesh) -> Any:
        """Returns the parameters, their moving average where there is one, with adapters merged into them.

        Raises UserError if they are damaged, or the model that adapters belong to is not as it was.
        """
        config = experiment.from_dict(self.meta['config'])
        config.model.attention = 'auto'
        model = build_model(config, self.tokenizer, mesh)
        learnt, frozen = freezing.split(abstract_params(model, mesh), freezing.learnt(config))
        key = 'ema_params' if config.ema_decay else 'params'
        wanted = {key: learnt} | ({'frozen': frozen} if frozen and not config.lora.rank else {})
        checkpoints = Checkpoints(self.directory / 'checkpoints', read_only=True)
        try:
            state, _ = checkpoints.restore(self.step, wanted)
        except DamagedCheckpointError as error:
            raise _damaged(self.directory, self.step, self.steps, error) from error
        finally:
            checkpoints.close()
        adapted = getattr(model.config, 'lora', None)
        if adapted is None:
            return freezing.join(state[key], state.get('frozen'))
        frozen = read_again(self.meta['initial'], frozen, mesh)
        return adapters.merge(freezing.join(state[key], frozen), adapted)

    def digest(self, params: Any) -> str:
        """Returns a SHA-256 (hex) of the digests of all arrays of the checkpoint, which `read` compares."""
        return _sha256([self.meta['arrays'], self.meta.get('initial')])


def read_again(began: dict[str, str], wanted: Mapping[str, Any] | None, mesh: Mesh) -> dict[str, Any]:
    """Returns those parameters of an initial checkpoint that a run with adapters leaves as they are.

    Args:
      began: {'checkpoint', 'digest'}, of the run's meta.
      wanted: the parameters, or what stands for them.

    Raises:
      UserError: when that model is gone or has changed.
    """
    try:
        base = find(began['checkpoint'])
    except UserError as error:
        raise UserError(
            f'the adapters belong to {began["checkpoint"]}, which must be there: {error}'
        ) from error
    params = base.read(mesh)
    if base.digest(params) != began['digest']:
        raise UserError(
            f'{began["checkpoint"]} is not the model that the adapters were trained on: its digest is '
            f'{base.digest(params)[:12]}, not {began["digest"][:12]}. Put that one back.'
        )
    params = freezing.named(params)
    return unflatten_dict({name: params[name] for name in freezing.named(wanted or {})}, sep='/')


def _find_run(checkpoint: str) -> RunOrigin:
    place, _, wanted = (checkpoint, '', '') if Path(checkpoint).is_dir() else checkpoint.rpartition('@')
    directory = Path(place or checkpoint)
    if not (directory / 'checkpoints').is_dir():
        if (directory / pretrained.CONFIG).is_file():
            fault = f'has a {pretrained.CONFIG} without model_type, and no checkpoints/'
        elif directory.is_file():
            fault = 'is a file'
        elif directory.exists():
            fault = f'has no checkpoints/ and no {pretrained.CONFIG} of a published model'
        else:
            fault = 'does not exist'
        raise UserError(
            f'--checkpoint={checkpoint}: {directory} {fault}; give a --workdir of train.py, a directory in '
            "Hugging Face's format, FILE.gguf or hf:NAME."
        )
    best_metric = experiment.load(directory / 'config.json').best_metric
    checkpoints = Checkpoints(directory / 'checkpoints', best_metric=best_metric, read_only=True)
    steps = checkpoints.steps()
    if not steps:
        raise UserError(
            f'--checkpoint={checkpoint}: no checkpoint is finished there yet; train.py writes them.'
        )
    if wanted and (not wanted.isdigit() or int(wanted) not in steps):
        raise UserError(f'--checkpoint={checkpoint}: step {wanted!r} is not kept; there are {steps}.')
    best = checkpoints.best_step()
    step = int(wanted) if wanted else steps[-1] if best is None else best
    try:
        meta = checkpoints.meta(step)
    except DamagedCheckpointError as error:
        raise _damaged(directory, step, steps, error) from error
    finally:
        checkpoints.close()
    tokenizer = load_tokenizer(directory / 'tokenizer')
    if tokenizer.fingerprint != meta['tokenizer_fingerprint']:
        raise UserError(f'{directory}/tokenizer is not the one this model was trained with; restore it.')
    config = experiment.from_dict(meta['config'])
    config.model.attention = 'auto'  # what this machine has, not the one it was trained on
    config.lora.rank = 0  # `read` merges adapters
    name = f'{directory}@{step}'
    return RunOrigin(name, directory, step, config, meta, tokenizer, RUN_DECODING, steps)


def _damaged(directory: Path, step: int, steps: list[int], error: Exception) -> UserError:
    others = [other for other in steps if other != step]
    hint = f'use --checkpoint={directory}@{others[-1]}' if others else 'train again'
    return UserError(f'{error}; {hint}.')


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
