"""An experiment's config as a value: checked before use, written to a run, read back, compared."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import base, cleaning
from configs.command_line import flatten
from configs.errors import UserError, choose

CHOICES = {
    'gradient_dtype': ('float32', 'bfloat16'),
    'optimizer.name': ('adamw', 'adagrad', 'sgd'),
    'optimizer.schedule': ('cosine', 'linear', 'inverse_sqrt', 'wsd', 'constant'),
    'data.mode': ('shards', 'stream'),
    'data.packing': ('concatenate', 'best_fit'),
    'data.text_documents': ('paragraph', 'line', 'file'),
    'tokenizer.kind': ('bpe', 'unigram', 'words'),
    'wandb.mode': ('online', 'offline', 'disabled'),
}
AT_LEAST_ONE = (
    'num_steps',
    'batch_size',
    'sequence_length',
    'target_length',
    'grad_accumulation',
    'log_every',
    'keep_checkpoints',
    'max_skipped_steps',
    'model.vocab_blocks',
    'sample_tokens',
    'tokenizer.sample_bytes',
    'tokenizer.vocab_size',
    'tokenizer.min_count',
    'data.shard_tokens',
    'data.shuffle_bytes',
    'task.answer_tokens',
    'task.unlabelled_ratio',
)
NOT_NEGATIVE = (
    'eval_every',
    'eval_batches',
    'checkpoint_every',
    'sample_every',
    'early_stopping',
    'lora.rank',
    'z_loss',
    'data.num_workers',
    'tokenizer.phrase_threshold',
    'words.subsample',
    'optimizer.warmup_steps',
    'optimizer.weight_decay',
    'optimizer.clip_norm',
    'task.epochs',
    'task.eval_examples',
    'task.consistency',
)
SHARES = (
    'ema_decay',
    'label_smoothing',
    'task.mask_rate',
    'task.consistency_threshold',
    'optimizer.b1',
    'optimizer.b2',
    'data.eval_fraction',
)
POSITIVE = (
    'lora.alpha',
    'optimizer.learning_rate',
    'optimizer.eps',
    'model.norm_epsilon',
    'model.rope_theta',
    'model.rope_factor',
    'data.mixture.temperature',
)
PATTERNS = ('optimizer.weight_decay_exclude', 'optimizer.frozen', 'lora.targets')  # regular expressions
# Pieces that every trained tokenizer has, and that tokenizer.control_symbols therefore cannot add.
OWN_SYMBOLS = re.compile(r'<(?:pad|s|/s|unk|0x[0-9A-F]{2})>')
RANGES = {  # both ends included; SentencePiece takes no lower coverage
    'optimizer.decay_fraction': (0, 1),
    'optimizer.layer_decay': (0.01, 1),
    'data.cooccurrence_window': (0, 63),
    'optimizer.final_learning_rate': (0, 1),
    'tokenizer.character_coverage': (0.98, 1),
}


def check(config: ConfigDict) -> None:
    """Raises UserError for a value, or a combination of values, that no machine could run.

    What depends on the tokenizer or on the devices is checked where those are known
    (`model.families.resolve`, `parallel.mesh.make_mesh`), still before anything is compiled.
    """
    flat = flatten(config)
    for key, choices in CHOICES.items():
        choose(key, flat[key], choices)
    for key, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f'{key}={value} must be a finite number.')
    for keys, minimum in ((AT_LEAST_ONE, 1), (NOT_NEGATIVE, 0)):
        for key in keys:
            if flat[key] is not None and flat[key] < minimum:
                raise UserError(f'{key}={flat[key]} is too small; it must be at least {minimum}.')
    for key in SHARES:
        if not 0 <= flat[key] < 1:
            raise UserError(f'{key}={flat[key]} is a share; it must be at least 0 and below 1.')
    for key in POSITIVE:
        if flat[key] is not None and flat[key] <= 0:
            raise UserError(f'{key}={flat[key]} must be above 0.')
    for key, (lowest, highest) in RANGES.items():
        if not lowest <= flat[key] <= highest:
            raise UserError(f'{key}={flat[key]} must be from {lowest} to {highest}.')
    for key in ('sample_prompts', 'tokenizer.control_symbols', *PATTERNS):
        if not all(isinstance(text, str) for text in flat[key]):
            raise UserError(f"{key}={flat[key]} must hold texts, such as ('a', 'b').")
    for key in PATTERNS:
        for pattern in flat[key]:
            _check_pattern(key, pattern)
    check_fine_tuning(config)
    check_pairs(config)
    check_mixture(config)
    if config.data.cooccurrence_window and (config.data.mode == 'stream' or config.data.target_field):
        raise UserError(
            f'data.cooccurrence_window={config.data.cooccurrence_window} counts in all of a plain text: use '
            "data.mode='shards' and leave data.target_field empty."
        )
    cleaning.check(config)
    _check_control_symbols(config.tokenizer.control_symbols)
    if config.batch_size % config.grad_accumulation:
        raise UserError(
            f'batch_size={config.batch_size} does not divide into grad_accumulation='
            f'{config.grad_accumulation} equal parts; use a multiple of {config.grad_accumulation}.'
        )
    if config.optimizer.warmup_steps >= config.num_steps and config.optimizer.warmup_steps > 0:
        raise UserError(
            f'optimizer.warmup_steps={config.optimizer.warmup_steps} leaves nothing of num_steps='
            f'{config.num_steps}; use fewer warm-up steps.'
        )
    if config.profile_steps and not (
        len(config.profile_steps) == 2
        and 0 < config.profile_steps[0] <= config.profile_steps[1] <= config.num_steps
    ):
        raise UserError(
            f'profile_steps={config.profile_steps} must be () or (first, last) step within the run.'
        )
    if config.sample_every and not config.sample_prompts:
        raise UserError('sample_prompts=() leaves nothing to continue; give prompts, or set sample_every=0.')


def check_fine_tuning(config: ConfigDict) -> None:
    """Raises UserError for ways to begin, or to stop early, that contradict each other."""
    if config.initial_checkpoint and config.model.embedding_vectors:
        raise UserError(
            f'model.embedding_vectors={config.model.embedding_vectors!r} would replace embeddings of '
            f'initial_checkpoint={config.initial_checkpoint!r}; leave one of them out.'
        )
    if config.optimizer.offload and config.optimizer.layer_decay != 1.0:
        raise UserError(
            f'optimizer.offload updates each layer by itself, and optimizer.layer_decay='
            f'{config.optimizer.layer_decay} needs to know which it is; leave one of them out.'
        )
    for key, none in (('lora.rank', 0), ('optimizer.layer_decay', 1.0)):
        if (value := flatten(config)[key]) != none and not config.initial_checkpoint:
            raise UserError(
                f'{key}={value} is for a trained model, which initial_checkpoint must name; set it, or '
                f'{key}={none}.'
            )
    every, saved = config.eval_every, config.checkpoint_every
    if config.early_stopping and not (config.best_metric and every and saved and every % saved == 0):
        raise UserError(
            f'early_stopping={config.early_stopping} is for the sake of the best evaluation, which must be '
            f'saved: set best_metric, and eval_every to a multiple of checkpoint_every; they are '
            f'{config.best_metric!r}, {every} and {saved}.'
        )


def _check_pattern(key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f'{key}: {pattern!r} is no regular expression ({error}).') from error


def check_pairs(config: ConfigDict) -> None:
    """Raises UserError for pairs of texts (data.target_field) that no row can be made of."""
    field = config.data.target_field
    if field and config.data.mode == 'stream':
        raise UserError(
            f"data.target_field={field!r} makes pairs, which data.mode='stream' cannot read. Use "
            "data.mode='shards', and prepare.py with the same --config."
        )
    if field and config.data.packing != 'concatenate':
        raise UserError(
            f'data.packing={config.data.packing!r} is for plain text; data.target_field={field!r} makes '
            "pairs, which are never cut. Leave data.packing='concatenate'."
        )
    if field and field == config.data.text_field:
        raise UserError(
            f'data.target_field={field!r} is data.text_field too. Name two fields, of inputs and of targets.'
        )


def check_mixture(config: ConfigDict) -> None:
    """Raises UserError for a mixture (data.mixture) that does not say what to draw from each source."""
    mixture = config.data.mixture
    names = mixture.names
    if len(set(names)) < len(names) or not all(
        isinstance(n, str) and re.fullmatch(r'[^\s/]+', n) for n in names
    ):
        raise UserError(
            f'data.mixture.names={names} must be different words without slashes, such as '
            "--config.data.mixture.names=\"('code', 'prose')\"."
        )
    if len(mixture.sources) != len(names) or not all(isinstance(text, str) for text in mixture.sources):
        raise UserError(
            f'data.mixture.sources={mixture.sources} must be a text for each of data.mixture.names={names}.'
        )
    for key in ('weights', 'epochs'):
        if mixture[key]:
            _check_amounts(f'data.mixture.{key}', mixture[key], len(names))
    before = 0
    for stage in mixture.curriculum:
        if not (isinstance(stage, tuple) and stage and isinstance(stage[0], int) and stage[0] > before):
            raise UserError(
                f'data.mixture.curriculum={mixture.curriculum}: {stage!r} must be (steps, weight, …), with '
                f'more steps than {before}.'
            )
        before = stage[0]
        _check_amounts(f'the weights after step {before} of data.mixture.curriculum', stage[1:], len(names))
    if names and config.data.mode == 'stream' and (not mixture.weights or any(mixture.epochs)):
        raise UserError(
            "data.mode='stream' does not know how many rows a text has before it is read: give "
            'data.mixture.weights, and leave data.mixture.epochs empty. Prepared sources know.'
        )


def _check_amounts(name: str, amounts: tuple, count: int) -> None:
    """Raises UserError unless there are `count` numbers, none below 0 and one above."""
    numbers = all(isinstance(each, int | float) and 0 <= each < math.inf for each in amounts)
    if len(amounts) != count or not numbers or (count and not sum(amounts)):
        raise UserError(
            f'{name}={amounts} must be a number for each of the {count} sources in data.mixture.names, none '
            'below 0 and one of them above.'
        )


def _check_control_symbols(symbols: tuple[str, ...]) -> None:
    for number, symbol in enumerate(symbols):
        if not symbol or re.search(r'[\s\u2581]', symbol):
            problem = 'is empty or holds a space'
        elif OWN_SYMBOLS.fullmatch(symbol):
            problem = 'is a piece of every tokenizer already'
        elif symbol in symbols[:number]:
            problem = 'is there twice'
        else:
            continue
        raise UserError(
            f'tokenizer.control_symbols={symbols}: {symbol!r} {problem}. Give names of their own, such as '
            "('<mask>', '<extra_id_0>')."
        )


def save(config: ConfigDict, path: Path) -> None:
    """Writes the config as JSON, beside and then into place."""
    beside = path.with_suffix('.tmp')
    beside.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    beside.replace(path)


def load(path: Path) -> ConfigDict:
    """Reads a config that `save` wrote; keys it lacks keep the defaults of configs/base.py."""
    try:
        return from_dict(json.loads(path.read_text(encoding='utf-8')))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f'{path} cannot be read as a config ({error}); is its directory a run of train.py?'
        ) from error


def from_dict(saved: dict) -> ConfigDict:
    """Returns the defaults overlaid with nested `saved` values, lists made tuples again."""
    config = base.get_config()

    def overlay(section: ConfigDict, values: dict) -> None:
        for key, value in values.items():
            if key not in section:
                raise UserError(f'the saved config has a key {key!r} that this version does not know.')
            if isinstance(value, dict):
                overlay(section[key], value)
            else:
                section[key] = as_tuples(value)

    overlay(config, saved)
    return config


def as_tuples(value: Any) -> Any:
    """Returns a value read from JSON as a config holds it: tuples for lists, inner ones too."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns 'key: old → new' for every key whose value differs."""
    before, after = flatten(old), flatten(new)
    return [f'{key}: {before.get(key)} → {value}' for key, value in after.items() if before.get(key) != value]
