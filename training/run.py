"""A run's directory: what `train.py` leaves there, and how every other command opens it.

RUN/config.json  metrics.jsonl  loss.png  log.txt  tokenizer/  samples/  checkpoints/STEP/
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import experiment
from configs.errors import UserError
from data.tokenizer import Tokenizer
from data.tokenizer import load as load_tokenizer
from model.decoding import Decoding
from model.generation import generate
from model.transformer import Transformer
from model.word_embeddings import WordEmbeddings
from training import origin, pretrained, provenance
from training.building import build_model, whole_mesh
from training.checkpoint import Checkpoints, DamagedCheckpointError
from training.console import Log
from training.origin import RUN_DECODING
from training.prompts import encode_prompt
from training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model, ready for use."""

    directory: Path
    step: int
    config: ConfigDict  # the experiment, resolved
    meta: dict[str, Any]  # step, fingerprints, versions, mesh
    tokenizer: Tokenizer
    model: Transformer | WordEmbeddings
    params: Any  # on `mesh`; the moving average where the run kept one
    mesh: Mesh
    decoding: Decoding = RUN_DECODING  # where the user says nothing else

    @property
    def transformer(self) -> Transformer:
        """The model, of whatever reads or writes text; UserError for word embeddings."""
        if isinstance(self.model, WordEmbeddings):
            raise UserError(
                f'{self.directory} holds word embeddings, which neither read nor write text. See '
                'embeddings.py --help for what they are good for.'
            )
        return self.model

    def encode(self, text: str, *, chat: bool = False) -> np.ndarray:
        """Returns int32 ids of a text as this model reads it; with `chat`, of a question to answer."""
        return encode_prompt(self.transformer, self.tokenizer, text, chat=chat)

    def hidden(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns what the last block says of each text's tokens, float32 [L, D], L those of `encode`."""
        if not texts:
            raise UserError('there is no text to read; give at least one.')
        encoded = [self.encode(text) for text in texts]
        sizes = np.array([len(ids) for ids in encoded])
        width = min(1 << int(sizes.max() - 1).bit_length(), self.transformer.config.max_length)
        if sizes.max() > width:
            raise UserError(f'a text of {sizes.max()} tokens exceeds model.max_length={width}; shorten it.')
        tokens_BL = np.full((len(texts), width), self.tokenizer.pad_id, np.int32)
        for row, ids in enumerate(encoded):
            tokens_BL[row, : len(ids)] = ids
        segments_BL = (np.arange(width) < sizes[:, None]).astype(np.int32)
        hidden_BLD = np.asarray(
            _hidden(self.params, tokens_BL, segments_BL, model=self.transformer), np.float32
        )
        return [hidden_LD[:size] for hidden_LD, size in zip(hidden_BLD, sizes, strict=True)]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 [B, D]: the mean of each text's hidden states, scaled to length 1.

        What sentence encoders such as all-MiniLM-L6-v2 are trained for (Reimers and Gurevych 2019).
        """
        means_BD = np.stack([hidden_LD.mean(axis=0) for hidden_LD in self.hidden(texts)])
        return means_BD / np.linalg.norm(means_BD, axis=1, keepdims=True)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_length: int = 50, seed: int = 0, **settings: Any
    ) -> list[np.ndarray]:
        """Continues prompts of ids.

        Args:
          prompts: ids of at least one token each, as `encode` gives them.
          max_length: tokens in all, counted from the longest prompt, as in transformers.
          seed: decides what is drawn.
          **settings: of `model.decoding.Decoding`, in place of the model's own.

        Returns:
          int32 ids of each prompt and its continuation, or of an encoder-decoder's answer, without what fills
          up shorter ones.

        Raises:
          UserError: for no prompts, ids that the vocabulary lacks, settings that are unknown or out of range.
        """
        known = [field.name for field in dataclasses.fields(Decoding)]
        if unknown := sorted(set(settings) - set(known)):
            raise UserError(f'generate has no setting {unknown[0]!r}; there are {", ".join(known)}.')
        size = self.tokenizer.vocab_size
        if not prompts or not all(len(ids) and min(ids) >= 0 and max(ids) < size for ids in prompts):
            raise UserError(f'prompts must be one or more lists of ids, each from 0 to {size - 1}.')
        answers = self.transformer.config.encoder_layers > 0
        decoding = dataclasses.replace(self.decoding, **settings)
        if 'max_new_tokens' not in settings:
            left = max_length - (1 if answers else max(map(len, prompts)))
            decoding = dataclasses.replace(decoding, max_new_tokens=left)
        new = generate(
            self.transformer,
            self.params,
            prompts,
            decoding,
            key=jax.random.key(seed),
            eos_id=self.tokenizer.eos_id,
            pad_id=self.tokenizer.pad_id,
            vocab_size=self.tokenizer.vocab_size,
        )
        ends = np.isin(new, decoding.eos_ids or (self.tokenizer.eos_id,))
        lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, new.shape[1])
        count = decoding.num_return_sequences
        return [
            np.concatenate([[] if answers else prompts[row // count], new[row, :length]]).astype(np.int32)
            for row, length in enumerate(lengths)
        ]


@functools.partial(jax.jit, static_argnames='model')
def _hidden(params: Any, tokens_BL: jax.Array, segments_BL: jax.Array, *, model: Transformer) -> Any:
    return model.apply({'params': params}, tokens_BL, segments_BL, output='hidden')


def prepare_directory(workdir: Path) -> Path:
    """Makes the run's directory if absent and returns it; UserError if a file is in the way."""
    try:
        (workdir / 'samples').mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--workdir={workdir} cannot be made a directory: {error}.') from error
    return workdir


def write_samples(workdir: Path, step: int, samples: list[str]) -> None:
    """Writes RUN/samples/STEP.txt."""
    (workdir / 'samples' / f'{step:06d}.txt').write_text('\n\n---\n\n'.join(samples) + '\n', encoding='utf-8')


class Resumed(NamedTuple):
    """Where a run goes on."""

    step: int
    state: TrainState
    position: jax.Array
    meta: dict[str, Any]  # of the checkpoint


def resume(
    checkpoints: Checkpoints,
    abstract: TrainState,
    position: jax.Array,
    config: ConfigDict,
    facts: dict,
    log: Log,
) -> Resumed | None:
    """Restores the newest readable checkpoint into the shardings of `abstract` and `position`.

    Returns None when the run has no checkpoint. Prints how config and
    versions differ from the saved ones. A damaged checkpoint is reported and the one before it taken;
    then the damaged one is set aside in RUN/damaged. Raises UserError when none can be read, and moves
    nothing; or when the checkpoint was trained on other data or with another tokenizer.
    """
    steps = checkpoints.steps()
    where = checkpoints.directory
    damaged = []
    for step in reversed(steps):
        try:
            meta = checkpoints.meta(step)
            for key in ('data_fingerprint', 'tokenizer_fingerprint'):
                if meta[key] != facts[key]:
                    raise UserError(
                        f'{where}/{step} was trained with {key} {meta[key][:12]}, not {facts[key][:12]}; '
                        f'restore the text, data.*, tokenizer.*, batch_size and seed of that run, or choose '
                        f'another --workdir.'
                    )
            template = jax.ShapeDtypeStruct(position.shape, position.dtype, sharding=position.sharding)
            state, position = checkpoints.restore(step, abstract, template)
        except DamagedCheckpointError as error:
            log(f'{error}.', style='bold red')
            damaged.append(step)
            continue
        for unreadable in damaged:
            log(f'step {unreadable} is kept as {checkpoints.set_aside(unreadable)}.', style='bold red')
        changes = experiment.differences(experiment.from_dict(meta['config']), config)
        changes += [f'{key}: {meta[key]} → {facts[key]}' for key in facts if meta.get(key) != facts[key]]
        log(f'continuing from step {step} of {where}', style='bold')
        for change in changes:
            log(f'  changed since: {change}', style='yellow')
        return Resumed(step, state, position, meta)
    if steps:
        raise UserError(
            f'no checkpoint in {where} can be read: {steps} are damaged. Nothing was changed; restore them '
            f'from a copy, or choose another --workdir.'
        )
    return None


def open_text(directory: Path) -> tuple[ConfigDict, Tokenizer]:
    """Returns the experiment of a run and its tokenizer, without touching any parameters."""
    return experiment.load(directory / 'config.json'), load_tokenizer(directory / 'tokenizer')


def open_run(checkpoint: str, *, pickles: bool = False) -> Run:
    """Opens a model for use: its parameters alone, cut over all devices where the width divides over them.

    Arguments and errors are those of `training.origin.find`.
    """
    found = origin.find(checkpoint, pickles=pickles)
    mesh = whole_mesh(found.config)
    return Run(
        found.directory,
        found.step,
        found.config,
        found.meta,
        found.tokenizer,
        build_model(found.config, found.tokenizer, mesh),
        found.read(mesh),
        mesh,
        found.decoding,
    )


def save_as_run(opened: Run, directory: Path) -> None:
    """Writes a model as a run of its own, whole or not at all: step, config, tokenizer and parameters."""
    config = opened.config.copy_and_resolve_references()
    config.ema_decay = 0.0  # the average, where there was one, is what was opened
    config.initial_checkpoint, config.optimizer.frozen = '', ()  # all of it lies here
    beside = prepare_directory(pretrained.beside(directory))
    experiment.save(config, beside / 'config.json')
    opened.tokenizer.save(beside / 'tokenizer')
    meta = opened.meta | {
        'step': opened.step,
        'config': config.to_dict(),
        'tokenizer_fingerprint': opened.tokenizer.fingerprint,
        'origin': str(opened.directory),
        'code_version': provenance.code_version(),
        'packages': provenance.package_versions(),
    }
    checkpoints = Checkpoints(beside / 'checkpoints')
    checkpoints.save(opened.step, {'params': opened.params}, jnp.zeros((1, 1), jnp.int32), meta)
    checkpoints.wait()
    checkpoints.close()
    pretrained.move_into_place(beside, directory)
