"""Continues prompts with a trained model.

  python generate.py --checkpoint=runs/quickstart --prompt="Once upon a time" --max_length=50
  python generate.py --checkpoint=runs/quickstart@200 --prompts_file=in.jsonl --output=out.jsonl

--checkpoint takes a run directory (its best checkpoint, or the newest if none was evaluated) or RUN@STEP.
A prompts file has one {"prompt": …} a line; the output repeats each line with "completions", a list of texts.
Lengths are in tokens. --max_new_tokens is each prompt's own, --max_length counts from the longest prompt of a
batch, as in transformers. The same --seed gives the same texts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absl import flags

from configs import command_line
from configs.errors import UserError

CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Run directory, or RUN@STEP.', required=True)
PROMPT = flags.DEFINE_multi_string('prompt', [], 'Text to continue; may be given several times.')
PROMPTS_FILE = flags.DEFINE_string('prompts_file', None, 'JSON lines, each with a "prompt".')
OUTPUT = flags.DEFINE_string('output', None, 'File of JSON lines to write; default: print.')
MAX_LENGTH = flags.DEFINE_integer('max_length', None, 'Tokens in all, the longest prompt included.')
MAX_NEW_TOKENS = flags.DEFINE_integer('max_new_tokens', None, 'Tokens after the prompt (default: 50).')
TEMPERATURE = flags.DEFINE_float('temperature', 0.8, 'Divides the logits; 0 takes the most probable token.')
TOP_K = flags.DEFINE_integer('top_k', 50, 'Draw among the k most probable tokens only; 0: all.')
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Draw among the most probable tokens that sum to p only; 1: all.')
NUM_RETURN_SEQUENCES = flags.DEFINE_integer('num_return_sequences', 1, 'Texts per prompt.', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'Decides what is drawn.')
BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Texts made at once.', lower_bound=1)


def main() -> None:
    """Reads the prompts, continues them batch by batch, and prints or writes the texts."""
    records = read_prompts()

    import jax

    from parallel import processes
    from training import run, sampling

    processes.start()
    opened = run.open_run(CHECKPOINT.value)
    jax.set_mesh(opened.mesh)
    prompts = [opened.tokenizer.encode_prompt(record['prompt']) for record in records]
    prompts = [prompt for prompt in prompts for _ in range(NUM_RETURN_SEQUENCES.value)]
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH_SIZE.value):
        batch = prompts[start : start + BATCH_SIZE.value]
        texts += sampling.complete(
            opened.model,
            opened.params,
            opened.tokenizer,
            batch,
            max_new_tokens=new_tokens(max(map(len, batch)), opened.model.config.max_length),
            key=jax.random.fold_in(jax.random.key(SEED.value), start),
            temperature=TEMPERATURE.value,
            top_k=TOP_K.value,
            top_p=TOP_P.value,
        )
    count = NUM_RETURN_SEQUENCES.value
    results = [
        record | {'completions': texts[index * count : (index + 1) * count]}
        for index, record in enumerate(records)
    ]
    if processes.is_main():
        write_results(results)


def read_prompts() -> list[dict]:
    """Returns records with a 'prompt', from the flags and the prompts file."""
    records = [{'prompt': text} for text in PROMPT.value]
    if PROMPTS_FILE.value:
        try:
            lines = Path(PROMPTS_FILE.value).read_text(encoding='utf-8').rstrip('\n').split('\n')
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'--prompts_file={PROMPTS_FILE.value} cannot be read: {error}.') from error
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f'{PROMPTS_FILE.value}:{number} is not JSON: {error}.') from error
            if not isinstance(record, dict) or not isinstance(record.get('prompt'), str):
                raise UserError(
                    f'{PROMPTS_FILE.value}:{number} has no "prompt" text; expected {{"prompt": "…"}}.'
                )
            records.append(record)
    if not records:
        raise UserError('no prompt given: use --prompt="…" or --prompts_file=FILE.jsonl.')
    return records


def new_tokens(longest: int, max_length: int) -> int:
    """Returns how many tokens to add to prompts of which the longest has `longest`, bos included."""
    if MAX_NEW_TOKENS.value is not None:
        return MAX_NEW_TOKENS.value
    if MAX_LENGTH.value is None:
        return max(1, min(50, max_length - longest))
    if MAX_LENGTH.value <= longest:
        raise UserError(
            f'--max_length={MAX_LENGTH.value} leaves nothing to add to a prompt of {longest} tokens.'
        )
    return MAX_LENGTH.value - longest


def write_results(results: list[dict]) -> None:
    """Writes JSON lines to --output, beside and then into place, or prints the texts."""
    if OUTPUT.value:
        path = Path(OUTPUT.value)
        beside = path.with_name(path.name + '.tmp')
        lines = (json.dumps(result, ensure_ascii=False) + '\n' for result in results)
        beside.write_text(''.join(lines), encoding='utf-8')
        beside.replace(path)
        print(f'wrote {len(results)} records to {path}', file=sys.stderr)
        return
    texts = [text for result in results for text in result['completions']]
    print('\n\n---\n\n'.join(texts))


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
