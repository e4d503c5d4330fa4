"""Where training begins: at random parameters, or at those of another model (config.initial_checkpoint).

That model's tokenizer and shape are then the run's. What a run began from is read once: a run that goes on
finds all of it in its own directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import base, experiment
from configs.errors import UserError
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer
from model import lora
from model.transformer import Transformer
from model.word_embeddings import WordEmbeddings
from training import adapters, freezing, origin, vectors
from training import state as states
from training.building import build_model
from training.console import Log
from training.origin import Origin
from training.state import TrainState

# Parameters that make logits of words, which a task may leave out.
LOGIT_HEADS = (r'^head_dense/', r'^head_norm/', r'^output_bias$', r'^unembed/')

# Those that begin at random where the model has none that fit.
NEW = (*freezing.HEADS, *lora.ADAPTERS)

# Keys of config.model that say how the model is trained, and are never taken from the checkpoint.
OWN_KEYS = ('dropout_rate', 'attention', 'remat', 'embedding_vectors')
# Those that an experiment may set against the checkpoint: which heads there are, and the longest text.
HEAD_KEYS = ('head', 'output_bias', 'pooler', 'num_classes', 'span_head')
FREE_KEYS = (*HEAD_KEYS, 'max_length')


class Beginning(NamedTuple):
    """What a run is to begin from."""

    tokenizer: Tokenizer | None = None  # None: that of the prepared text
    origin: Origin | None = None  # None: random parameters, or those of the run's own checkpoints

    def first_state(
        self,
        model: Transformer | WordEmbeddings,
        optimizer: optax.GradientTransformation,
        abstract: TrainState,
        config: ConfigDict,
        tokenizer: Tokenizer,
        log: Log,
    ) -> tuple[TrainState, dict[str, str] | None]:
        """Returns the state before the first step, in its shards, and what it began from.

        That is {'checkpoint': name, 'digest': SHA-256}, None without an initial checkpoint. Parameters that
        neither it nor model.embedding_vectors give are random.
        """
        learns = freezing.learnt(config)
        given, began = None, None
        if self.origin is not None:
            params = self.origin.read(abstract.step.sharding.mesh)
            began = {'checkpoint': self.origin.name, 'digest': self.origin.digest(params)}
            log(f'beginning from {began["checkpoint"]}, digest {began["digest"][:12]}', style='bold')
            given = _fitting(params, abstract.whole_params(), began['checkpoint'], log)
        adapters.check(abstract.params, config.lora.targets if config.lora.rank else ())
        state = states.create(model, optimizer, abstract, seed=config.seed, learns=learns, given=given)
        if config.model.embedding_vectors:
            params = freezing.join(state.params, state.frozen)
            params = vectors.plant(params, config.model.embedding_vectors, tokenizer)
            learnt, still = freezing.split(params, learns)
            ema_params = None if state.ema_params is None else jax.tree.map(jnp.copy, learnt)
            state = state._replace(params=learnt, frozen=still, ema_params=ema_params)
        return state, began


def completed(
    state: TrainState, abstract: TrainState, config: ConfigDict, meta: dict[str, Any]
) -> TrainState:
    """Returns a state that was restored, with what `kept` left out of its checkpoint."""
    if not config.lora.rank:
        return state
    frozen = origin.read_again(meta['initial'], abstract.frozen, abstract.step.sharding.mesh)
    return state._replace(frozen=frozen)


def kept(state: TrainState, config: ConfigDict) -> TrainState:
    """Returns what checkpoints hold of a state: with adapters, not what lies in the initial checkpoint."""
    return state._replace(frozen=None) if config.lora.rank else state


def find(config: ConfigDict, workdir: Path, mesh: Mesh) -> Beginning:
    """Finds what the run in `workdir` begins from, and gives config.model its shape.

    A run with checkpoints has tokenizer and shape of its own. Raises UserError if there is no such model, if
    the experiment contradicts its shape, and for a run that has begun from something else.
    """
    name = config.initial_checkpoint
    if any((workdir / 'checkpoints').glob('[0-9]*')):
        saved = experiment.load(workdir / 'config.json')
        if saved.initial_checkpoint != name:
            raise UserError(
                f'{workdir} began from initial_checkpoint={saved.initial_checkpoint!r}, not {name!r}; give '
                'that one to go on, or another --workdir.'
            )
        if not name:
            return Beginning()
        _take_shape(config, saved.model.to_dict())
        return Beginning(load_tokenizer(workdir / 'tokenizer'))
    return find_initial(config, mesh)


def find_initial(config: ConfigDict, mesh: Mesh) -> Beginning:
    """Finds config.initial_checkpoint, and gives config.model its shape; UserError as of `find`."""
    name = config.initial_checkpoint
    if not name:
        return Beginning()
    try:
        found = origin.find(name)
    except UserError as error:
        raise UserError(f'initial_checkpoint={name!r}: {error}') from error
    _take_shape(config, _shape(found, mesh))
    return Beginning(found.tokenizer, found)


def _shape(found: Origin, mesh: Mesh) -> dict[str, Any]:
    """Returns the keys of config.model that make a model, None where nothing else says so."""
    resolved = build_model(found.config, found.tokenizer, mesh).config
    keys = {key: getattr(resolved, key, value) for key, value in found.config.model.items()}
    keys['pooler'] = keys['pooler'] or None  # the classes that an experiment adds need one
    return keys


def _take_shape(config: ConfigDict, theirs: Mapping[str, Any]) -> None:
    """Sets the keys of config.model that the experiment leaves at their defaults to those of a checkpoint.

    Raises UserError, by name, for a key that it sets to something else.
    """
    defaults, ours = base.get_config().model, config.model
    said = {key for key, value in ours.items() if value != defaults[key]}
    for key, value in theirs.items():
        if key in OWN_KEYS:
            continue
        fixed = key not in FREE_KEYS or (key == 'max_length' and theirs['position'] == 'learned')
        if key not in said:
            ours[key] = value
        elif fixed and ours[key] != value:
            free = ', '.join(f'model.{key}' for key in (*OWN_KEYS, *FREE_KEYS))
            raise UserError(
                f'model.{key}={ours[key]!r} contradicts initial_checkpoint={config.initial_checkpoint!r}, '
                f"where it is {value!r}. Leave it out: the shape is the checkpoint's, but for {free}."
            )
    if ours.head == 'none' and 'output_bias' not in said:
        ours.output_bias = False  # it is the logits'


def _fitting(params: Any, wanted: Any, where: str, log: Log) -> dict[str, jax.Array]:
    """Returns {name: array} of the parameters that a model has too; the log says what is new and what goes.

    Raises UserError if anything but heads is missing or left over.
    """
    there, here = freezing.named(params), freezing.named(wanted)
    fitting = {name for name in there if name in here and there[name].shape == here[name].shape}
    new, gone = sorted(here.keys() - fitting), sorted(there.keys() - fitting)
    wrong = [f'{name} {list(here[name].shape)} is missing' for name in new if not freezing.matches(name, NEW)]
    wrong += [
        f'{name} {list(there[name].shape)} is left over'
        for name in gone
        if not freezing.matches(name, (*freezing.HEADS, *LOGIT_HEADS))
    ]
    if wrong:
        raise UserError(
            f'{where} does not fit this model: {"; ".join(wrong[:4])}{" …" if len(wrong) > 4 else ""}. Leave '
            'keys of model out, which are then those of the checkpoint.'
        )
    for names, fate in ((new, 'not there, and begins at random'), (gone, 'there, and left out')):
        if names:
            log(f'  {fate}: {", ".join(names)}', style='yellow')
    return {name: there[name] for name in fitting}
