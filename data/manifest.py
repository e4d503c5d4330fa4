"""What a prepared directory says of itself: which text, which tokenizer, which files.

    DIR/preparation.json   written first: the config keys and the source that it is prepared from
    DIR/tokenizer/         the tokenizer
    DIR/parts/             finished pieces of an unfinished preparation
    DIR/train/shard-00000.bin …, DIR/eval/…
    DIR/train/documents.parquet, DIR/eval/…   where each document stands (data/index.py)
    DIR/report.json, report.png, removed.jsonl.zst   what became of the source (data/report.py)
    DIR/manifest.json      written last: its presence says that all is finished

The layout of a shard: tokens without gaps, as little-endian integers of `dtype`. A shard of n rows
holds n · sequence_length + 1 tokens; row i is the sequence_length + 1 tokens from
i · sequence_length on. Neighbouring rows share one token, the last target of one and the first
input of the next, so that every token is the target of exactly one row. The last row of a split
is filled up with the pad token.

With data.packing='best_fit' rows share nothing: a shard of n rows holds n · (sequence_length + 1) tokens,
and each row is whole documents, one after another, then pad. A document that is longer than a row is cut
into pieces, each of which begins with bos.

With data.target_field a document is a pair of texts, and a row is for an encoder and a decoder:
sequence_length tokens of inputs, then target_length tokens of targets, in shards that are laid out as
above with the sum of both for sequence_length; the one token more is to be ignored. The inputs of
several pairs stand one after another, each ended by eos, and the targets likewise in the same order;
what is left of either side is pad. So pair i of a row is what stands before the i-th eos of each side.
No text of a pair is empty: where eos is the pad token too, the first empty one is behind the last pair.

With data.cooccurrence_window there are, besides, DIR/cooccurrences/…: records of which words stand near
each other (data/cooccurrences.py), which are then what is trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path

from ml_collections import ConfigDict

from configs import cleaning
from configs.errors import UserError
from data import mirror
from data.cleaning import block_list, contamination
from data.files import write_whole

FORMAT = 1
PACKINGS = ('concatenate', 'best_fit')
READING_KEYS = ('data.text_field', 'data.text_documents', 'data.eval_fraction')
TOKENIZER_KEYS = (
    'tokenizer.path',
    'tokenizer.kind',
    'tokenizer.vocab_size',
    'tokenizer.control_symbols',
    'tokenizer.sample_bytes',
    'tokenizer.character_coverage',
    'tokenizer.min_count',
    'tokenizer.lowercase',
    'tokenizer.phrase_threshold',
)
CONTENTS = {'config', 'tokenizer', 'sequence_length', 'dtype', 'train', 'eval'}
SHARD_KEYS = ('sequence_length', 'data.packing', 'data.shard_tokens', 'data.cooccurrence_window')
# Why pairs are left out: the second half of a count's name, and what it means.
LEFT_OUT = {
    'empty': 'with an empty text',
    'end_symbol': 'with an end symbol within a text',
    'long_input': 'with an input longer than sequence_length',
    'long_target': 'with a target longer than target_length',
}
# What was prepared before these keys were there was prepared with these values.
BEFORE = {
    'tokenizer.control_symbols': [],
    'tokenizer.min_count': 5,
    'tokenizer.lowercase': True,
    'tokenizer.phrase_threshold': 0.0,
    'data.target_field': '',
    'data.cleaning': {},
    'data.skip_damaged': False,
}
SHARDS_BEFORE = {'target_length': 0, 'data.packing': 'concatenate', 'data.cooccurrence_window': 0}
LISTS = ('evaluation_files', 'block_list')  # files besides the source that decide what is kept


def select(config: ConfigDict, keys: Iterable[str]) -> dict[str, object]:
    """Returns {key: value} of `keys` such as 'data.path', as JSON gives it back: lists for tuples."""
    values = {key: attrgetter(key)(config) for key in keys}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def target_length(config: ConfigDict) -> int:
    """Returns how many tokens of a prepared row are for targets: none without data.target_field."""
    return (config.target_length or config.sequence_length) if config.data.target_field else 0


def row_layout(sequence_length: int, target_length: int, packing: str) -> tuple[int, int]:
    """Returns how many tokens a row has, and how many lie from the beginning of a row to the next one's."""
    width = sequence_length + target_length + 1
    return width, width if packing == 'best_fit' else width - 1


def layout(prepared: dict) -> tuple[int, int]:
    """Returns the row_layout of what a manifest describes."""
    packing = {**SHARDS_BEFORE, **prepared['config']}['data.packing']
    return row_layout(prepared['sequence_length'], prepared.get('target_length', 0), packing)


def reading(config: ConfigDict) -> dict[str, object]:
    """Returns {key: value} of what decides how the source becomes documents; of cleaning, what is on."""
    return select(config, (*READING_KEYS, 'data.skip_damaged')) | {'data.cleaning': cleaning.resolve(config)}


def beyond_before(wanted: dict[str, object]) -> dict[str, object]:
    """Returns `wanted` without newer keys that say what was so before: fingerprints stay what they were."""
    return {key: value for key, value in wanted.items() if key not in BEFORE or value != BEFORE[key]}


def lists(config: ConfigDict, describe: Callable[[list[str]], dict]) -> dict[str, dict]:
    """Returns {key of LISTS: what `describe` says of its files}, of those that the config names."""
    settings = cleaning.resolve(config)
    files = {}
    if 'evaluation_files' in settings:
        files['evaluation_files'] = contamination.evaluation_files(str(settings['evaluation_files']))
    if 'block_list' in settings:
        block_list.read_phrases(str(settings['block_list']))
        files['block_list'] = [str(settings['block_list'])]
    return {name: describe(paths) for name, paths in files.items()}


def determining(config: ConfigDict) -> dict[str, object]:
    """Returns {key: value} of the config keys that decide what prepare.py writes."""
    wanted = select(config, ('data.source', 'data.target_field', *TOKENIZER_KEYS)) | reading(config)
    if config.data.mode == 'shards':
        wanted |= select(config, SHARD_KEYS) | {'target_length': target_length(config)}
    return wanted


def left_out(counted: dict) -> list[str]:
    """Returns such as '3 with an empty text' for each reason for which pairs were left out.

    counted: {'train': {'left_out_empty': 1, …}, 'eval': …}, a manifest for instance.
    """
    splits = (counted['train'], counted['eval'])
    numbers = {reason: sum(split.get(f'left_out_{reason}', 0) for split in splits) for reason in LEFT_OUT}
    return [f'{number:,} {LEFT_OUT[reason]}' for reason, number in numbers.items() if number]


def refuse_difference(directory: str | Path, there: dict, wanted: dict, how: str = 'otherwise') -> None:
    """Raises UserError, naming the keys, if some that are in both have different values."""
    shards = SHARDS_BEFORE if 'sequence_length' in there else {}
    there = {**BEFORE, **shards, **there}
    keys = [key for key in wanted if key in there and there[key] != wanted[key]]
    if keys:
        differing = ', '.join(f'{key} was {there[key]!r} and is now {wanted[key]!r}' for key in keys)
        raise UserError(
            f'{directory} was prepared {how}: {differing}. It is left as it is: change the config back, or '
            'give another data.path, or remove the directory yourself, and run prepare.py.'
        )


def fingerprint(content: dict) -> str:
    """Returns the SHA-256 (hex) of the canonical JSON of `content`."""
    canonical = json.dumps(content, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def write(path: Path, content: dict) -> None:
    """Writes `content` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + '\n').encode())


def read(path: Path) -> dict | None:
    """Returns the JSON object in `path`, None if there is no such file; UserError if it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path} is damaged ({error}). Remove {path.parent} and run prepare.py again.'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is damaged (no JSON object). Remove {path.parent} and run prepare.py again.')
    if content.get('format') != FORMAT:
        raise UserError(
            f'{path} has format {content.get("format")!r}, this version of Lathe reads format {FORMAT}. '
            'Prepare the text again with another data.path.'
        )
    return content


def require(path: Path) -> dict:
    """Returns the JSON object in `path`; UserError if it is missing or damaged."""
    content = read(path)
    if content is None:
        raise UserError(f'{path} is missing. Remove {path.parent} and run prepare.py again.')
    return content


def find(path: str | Path) -> dict:
    """Returns the manifest in a prepared directory; UserError if it is missing or damaged."""
    directory = mirror.prepared(path)
    manifest = read(directory / 'manifest.json')
    if manifest is None:
        begun = (directory / 'preparation.json').exists()
        state = 'is not finished' if begun else 'is no prepared directory'
        raise UserError(
            f'data.path={str(path)!r} {state} (there is no manifest.json in it). '
            f'Run prepare.py with the same --config{", which goes on where it stopped" if begun else ""}.'
        )
    if missing := sorted(CONTENTS - manifest.keys()):
        raise UserError(
            f'{path}/manifest.json is damaged ({", ".join(missing)} missing). Remove {path} and '
            'run prepare.py again.'
        )
    return manifest


def load(config: ConfigDict) -> dict:
    """Returns the manifest of config.data.path; UserError if it is missing or of another config."""
    manifest = find(config.data.path)
    # The text is what the manifest says it is; only what shapes the rows must agree.
    wanted = select(
        config, ('sequence_length', 'data.target_field', 'data.cooccurrence_window', *TOKENIZER_KEYS)
    )
    wanted['target_length'] = target_length(config)
    refuse_difference(config.data.path, manifest['config'], wanted)
    return manifest


def adopt_source(config: ConfigDict) -> None:
    """Sets the keys that say which text is learnt, so that a run records it.

    They are those that the shards were prepared with; where sources of a mixture differ, but for the text,
    the config keeps its own.
    """
    mixture = config.data.mixture
    if config.data.mode == 'stream':
        config.data.source = ','.join(mixture.sources) or config.data.source
        return
    directories = mixture.sources if mixture.names else (config.data.path,)
    prepared = [{**BEFORE, **SHARDS_BEFORE, **find(each)['config']} for each in directories]
    config.data.source = ','.join(dict.fromkeys(each['data.source'] for each in prepared))
    for key in ('data.packing', 'data.skip_damaged', *READING_KEYS):
        if len(values := {each[key] for each in prepared}) == 1:
            config.data[key.removeprefix('data.')] = values.pop()
    if all(each['data.cleaning'] == prepared[0]['data.cleaning'] for each in prepared):
        cleaning.adopt(config, prepared[0]['data.cleaning'])
