"""The whole road in a few minutes on a laptop's CPU: text, tokenizer, shards, training, evaluation, samples.

  python demo.py            (or: make demo)

It runs the commands a researcher would type, shows each, and ends with a summary. Run again, it finds
everything done and says so at once. --experiment and --workdir choose another.
"""

from __future__ import annotations

import json
import lzma
import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.markup import escape

from configs import command_line

EXPERIMENT = flags.DEFINE_string('experiment', 'configs/quickstart.py', 'Experiment file, as for --config.')
WORKDIR = flags.DEFINE_string('workdir', 'runs/quickstart', 'Directory of the run.')
PROMPTS = ('Returns the', 'This method is', 'If the file')

WHAT_NEXT = """
[bold]Where it lies[/]  {workdir}: loss.png, metrics.jsonl, samples/, checkpoints/, log.txt
                {prepared}: tokenizer/ and shards

[bold]Try next[/]
  .venv/bin/python generate.py --checkpoint={workdir} --prompt='The function'
  .venv/bin/python train.py --config={experiment} --workdir=runs/longer --config.num_steps=2000
  .venv/bin/python prepare.py --config=configs/gpt2.py:small --config.data.source='your/texts/*.txt'
"""

console = Console(highlight=False)


def main() -> int:
    """Runs the road and prints the summary; the exit status of the first command that fails."""
    start = time.monotonic()
    workdir = Path(WORKDIR.value)
    results, samples = workdir / 'evaluation.json', workdir / 'samples' / 'demo.jsonl'
    steps = (
        ['prepare.py', f'--config={EXPERIMENT.value}'],
        ['train.py', f'--config={EXPERIMENT.value}', f'--workdir={workdir}'],
        ['evaluate.py', f'--checkpoint={workdir}', f'--output={results}'],
        [
            'generate.py',
            f'--checkpoint={workdir}',
            *(f'--prompt={prompt}' for prompt in PROMPTS),
            '--max_new_tokens=40',
            '--temperature=0.4',
            f'--output={samples}',
        ],
    )
    for step in steps:
        shown = ' '.join(f'"{word}"' if ' ' in word else word for word in step)
        console.print(f'\n[bold cyan]$ python {escape(shown)}[/]')
        status = subprocess.run([sys.executable, *step], check=False).returncode
        if status:
            return status
    summarise(workdir, results, samples, time.monotonic() - start)
    return 0


def summarise(workdir: Path, results: Path, samples: Path, seconds: float) -> None:
    """Prints what came out, where it lies and what to try next."""
    from data import loader
    from training import run, tracking

    config, tokenizer = run.open_text(workdir)
    records = [
        record for record in tracking.read_metrics(workdir / 'metrics.jsonl') if 'tokens_per_second' in record
    ]
    scores = json.loads(results.read_text())[str(workdir)]
    held_out = loader.load(config, split='eval', tokenizer=tokenizer)
    text = b''.join(
        tokenizer.decode(row[:-1]).encode()
        for rows, _ in held_out.batches(held_out.initial_position())
        for row in rows
    )
    compressed = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    speed = statistics.median(record['tokens_per_second'] for record in records)

    console.print('\n[bold green]A language model, from text to text[/]')
    for name, value in (
        ('parameters', f'{scores["num_params"]:,}'),
        ('tokens seen', f'{records[-1]["tokens_seen"]:,} at {speed:,.0f} a second'),
        (
            'held-out loss',
            f'{scores["eval/loss"]:.3f} nats a token · perplexity {scores["eval/perplexity"]:.1f}',
        ),
        (
            'bits per byte',
            f'[bold]{scores["eval/bits_per_byte"]:.3f}[/] · xz -9e needs {compressed:.3f} for the same text',
        ),
        ('time', f'{seconds / 60:.1f} minutes'),
    ):
        console.print(f'  [cyan]{name:<14}[/] {value}')
    console.print('\n[bold]What it writes[/] (the prompt, and how it goes on)')
    for line in samples.read_text(encoding='utf-8').rstrip('\n').split('\n'):
        record = json.loads(line)
        more = record['completions'][0][len(record['prompt']) :]
        console.print(
            f'  [green]›[/] [dim]{escape(record["prompt"])}[/] {escape(" ".join(more.split()))}',
            soft_wrap=True,
        )
    what_next = WHAT_NEXT.format(workdir=workdir, prepared=config.data.path, experiment=EXPERIMENT.value)
    console.print(what_next, soft_wrap=True)  # commands are copied, so no line breaks in them


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
