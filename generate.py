"""Continues prompts with a trained model.

  python generate.py --checkpoint=runs/quickstart --prompt="Once upon a time" --max_length=50
  python generate.py --checkpoint=runs/quickstart@200 --prompts_file=in.jsonl --output=out.jsonl
  python generate.py --checkpoint=gpt2/ --prompt="Once upon a time" --num_beams=4
  python generate.py --checkpoint=bert/ --prompt="Paris is the [MASK] of France."
  python generate.py --checkpoint=hf:HuggingFaceTB/SmolLM2-135M-Instruct --chat --prompt="What is a prime?"

--checkpoint takes a run directory (its best checkpoint, or the newest if none was evaluated), RUN@STEP, a
directory in Hugging Face's format, hf:NAME (hf:NAME@REVISION) from the hub, or FILE.gguf. A prompts file has
one {"prompt": …} a line; the output repeats each line with "completions", a list of texts.

An encoder-decoder such as T5 answers its prompt. An encoder such as BERT fills the masks of a prompt, [MASK]
or <mask>, each on its own, and shows the --top_k likeliest tokens (5) with their probabilities.

Lengths are in tokens. --max_new_tokens is each prompt's own, --max_length counts from the longest prompt of a
batch, as in transformers. The same --seed gives the same texts. --num_beams above 1 searches instead of
drawing: --temperature, --top_k and --top_p then have no effect. Where those are not given, a run draws at
temperature 0.8 among 50; a published model does what its generation_config.json says, beams and penalties
included, or else takes the most probable token, as transformers does. Lengths are never taken from there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from configs import command_line
from configs.errors import UserError
from data.files import write_whole
from model.decoding import Decoding
from parallel.peers import ending_together

if TYPE_CHECKING:
    from training.run import Run

CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Run, RUN@STEP, directory or hf:NAME.', required=True)
PROMPT = flags.DEFINE_multi_string('prompt', [], 'Text to continue; may be given several times.')
PROMPTS_FILE = flags.DEFINE_string('prompts_file', None, 'JSON lines, each with a "prompt".')
OUTPUT = flags.DEFINE_string('output', None, 'File of JSON lines to write; default: print.')
MAX_LENGTH = flags.DEFINE_integer('max_length', None, 'Tokens in all, the longest prompt included.')
MAX_NEW_TOKENS = flags.DEFINE_integer('max_new_tokens', None, 'Tokens after the prompt (default: 50).')
TEMPERATURE = flags.DEFINE_float('temperature', None, 'Divides the logits; 0 takes the most probable token.')
TOP_K = flags.DEFINE_integer(
    'top_k', None, 'Draw among the k most probable tokens only; 0: all. Masks: show so many.'
)
TOP_P = flags.DEFINE_float('top_p', None, 'Draw among the most probable tokens that sum to p only; 1: all.')
REPETITION_PENALTY = flags.DEFINE_float(
    'repetition_penalty',
    None,
    'Above 1, tokens that the prompt or the text already has become less probable.',
)
NO_REPEAT_NGRAM_SIZE = flags.DEFINE_integer(
    'no_repeat_ngram_size', None, 'No sequence of so many tokens occurs twice, prompt included; 0: any may.'
)
MIN_NEW_TOKENS = flags.DEFINE_integer('min_new_tokens', None, 'A text does not end before.')
NUM_BEAMS = flags.DEFINE_integer(
    'num_beams', None, 'Continuations kept side by side in beam search; 1: none.'
)
LENGTH_PENALTY = flags.DEFINE_float('length_penalty', None, 'Beams: above 0 favours long texts, below short.')
EARLY_STOPPING = flags.DEFINE_enum(
    'early_stopping',
    None,
    ['false', 'true', 'never'],
    'Beams: stop with num_beams finished (true), or once better are unlikely (false) or impossible (never).',
)
NUM_RETURN_SEQUENCES = flags.DEFINE_integer('num_return_sequences', 1, 'Texts per prompt.', lower_bound=1)
STOP = flags.DEFINE_multi_string('stop', [], 'A text ends with this string; may be given several times.')
STREAM = flags.DEFINE_bool('stream', False, 'Print the text as it grows; one prompt, no beams.')
CHAT = flags.DEFINE_bool(
    'chat', False, "Prompts are questions, put into the model's chat template; print answers."
)
SEED = flags.DEFINE_integer('seed', 0, 'Decides what is drawn.', lower_bound=0, upper_bound=2**32 - 1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Texts made at once.', lower_bound=1)


def main() -> None:
    """Reads the prompts, continues them batch by batch, and prints or writes the texts."""
    records = read_prompts()
    check_flags(len(records), NUM_BEAMS.value or 1)
    refuse_equal_texts(TEMPERATURE.value, NUM_BEAMS.value or 1)
    command_line.check_output('output', OUTPUT.value)
    given = read_decoding()

    import jax

    from parallel import processes
    from training import run

    processes.start()
    opened = run.open_run(CHECKPOINT.value)
    jax.set_mesh(opened.mesh)
    if opened.transformer.config.structure == 'encoder':
        results = fill_masks(opened, records)
    else:
        decoding = dataclasses.replace(opened.decoding, **given)
        check_flags(len(records), decoding.num_beams)
        if decoding.num_beams > 1:
            decoding = dataclasses.replace(decoding, num_return_sequences=NUM_RETURN_SEQUENCES.value)
        results = write_texts(opened, records, decoding)
    if processes.is_main():
        write_results(results)


def write_texts(opened: Run, records: list[dict], decoding: Decoding) -> list[dict]:
    """Returns the records with "completions", made batch by batch."""
    import jax

    from parallel import processes
    from training import sampling
    from training.prompts import encode_prompt

    model = opened.transformer
    count = NUM_RETURN_SEQUENCES.value
    refuse_equal_texts(decoding.temperature, decoding.num_beams)
    prompts = [
        encode_prompt(model, opened.tokenizer, record['prompt'], chat=CHAT.value) for record in records
    ]
    prompts = [prompt for prompt in prompts for _ in range(count // decoding.num_return_sequences)]
    write = (print_piece if processes.is_main() else len) if STREAM.value else None
    texts: list[str] = []
    rows = max(1, BATCH_SIZE.value // decoding.num_beams)
    for start in range(0, len(prompts), rows):
        batch = prompts[start : start + rows]
        longest = 1 if model.config.encoder_layers else max(map(len, batch))
        texts += sampling.complete(
            model,
            opened.params,
            opened.tokenizer,
            batch,
            dataclasses.replace(decoding, max_new_tokens=new_tokens(longest, model.config.max_length)),
            key=jax.random.fold_in(jax.random.key(SEED.value), start),
            stop=STOP.value,
            write=write,
            with_prompt=not CHAT.value,
        )
    return [
        record | {'completions': texts[index * count : (index + 1) * count]}
        for index, record in enumerate(records)
    ]


def fill_masks(opened: Run, records: list[dict]) -> list[dict]:
    """Returns the records with "completions", and with "candidates" as [token, probability] for each mask."""
    from training import mask_filling

    results = []
    for record in records:
        filled = mask_filling.fill(
            opened.transformer, opened.params, opened.tokenizer, record['prompt'], candidates=TOP_K.value or 5
        )
        results.append(record | {'completions': [filled.text], 'candidates': filled.candidates})
    return results


def check_flags(num_prompts: int, beams: int) -> None:
    """Raises UserError for flags that cannot go together, or not with so many beams."""
    texts = NUM_RETURN_SEQUENCES.value
    if STOP.value and beams > 1:
        raise UserError(f'--stop does not work with --num_beams={beams}; leave one of them out.')
    if '' in STOP.value:
        raise UserError('--stop is empty; give it the string that ends a text.')
    if STREAM.value and (num_prompts > 1 or texts > 1 or beams > 1):
        raise UserError(
            f'--stream shows one text as it grows; here are {num_prompts} prompts, '
            f'--num_return_sequences={texts} and --num_beams={beams}. Leave it out, or make each 1.'
        )
    if STREAM.value and OUTPUT.value:
        raise UserError(f'--stream prints and --output={OUTPUT.value} writes a file; leave one of them out.')


def refuse_equal_texts(temperature: float | None, beams: int) -> None:
    """Raises UserError when several texts are asked for that would be the same."""
    if temperature == 0 and beams == 1 and NUM_RETURN_SEQUENCES.value > 1:
        raise UserError(
            f'--num_return_sequences={NUM_RETURN_SEQUENCES.value} texts would be the same at temperature 0; '
            'raise --temperature, or use --num_beams.'
        )


def read_decoding() -> dict[str, Any]:
    """Returns the settings of Decoding that were given, checked; the length is still to be set."""
    settings = {
        'min_new_tokens': MIN_NEW_TOKENS.value,
        'temperature': TEMPERATURE.value,
        'top_k': TOP_K.value,
        'top_p': TOP_P.value,
        'repetition_penalty': REPETITION_PENALTY.value,
        'no_repeat_ngram_size': NO_REPEAT_NGRAM_SIZE.value,
        'num_beams': NUM_BEAMS.value,
        'length_penalty': LENGTH_PENALTY.value,
        'early_stopping': {'false': False, 'true': True, 'never': 'never', None: None}[EARLY_STOPPING.value],
    }
    given = {name: value for name, value in settings.items() if value is not None}
    Decoding(**given, num_return_sequences=NUM_RETURN_SEQUENCES.value if (NUM_BEAMS.value or 1) > 1 else 1)
    return given


def print_piece(text: str) -> None:
    """Prints without waiting for the end of a line."""
    print(text, end='', flush=True)


def read_prompts() -> list[dict]:
    """Returns records with a 'prompt', from the flags and the prompts file."""
    records = [{'prompt': text} for text in PROMPT.value]
    if PROMPTS_FILE.value:
        try:
            lines = Path(PROMPTS_FILE.value).read_text(encoding='utf-8').rstrip('\n').split('\n')
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'--prompts_file={PROMPTS_FILE.value} cannot be read: {error}.') from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
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
        lines = (json.dumps(result, ensure_ascii=False) + '\n' for result in results)
        write_whole(Path(OUTPUT.value), ''.join(lines).encode())
        print(f'wrote {len(results)} records to {OUTPUT.value}', file=sys.stderr)
        return
    if STREAM.value:
        print()  # the text is there already
        return
    texts = [text + show_candidates(result) for result in results for text in result['completions']]
    print('\n\n---\n\n'.join(texts))


def show_candidates(result: dict) -> str:
    """Returns a block of lines for each mask of a text, '' where there are none."""
    blocks = (
        '\n'.join(f'  {probability:.4f}  {token}' for token, probability in ranked)
        for ranked in result.get('candidates', [])
    )
    return ''.join(f'\n\n{block}' for block in blocks)


if __name__ == '__main__':
    command_line.run(ending_together(main), __doc__ or '')
