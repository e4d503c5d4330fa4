"""Measures trained models on held-out text, or scores their answers to a task's examples.

  python evaluate.py --checkpoint=runs/quickstart
  python evaluate.py --checkpoint=runs/a,runs/b@500 --output=metrics.json
  python evaluate.py --checkpoint=gpt2/,runs/a --task=perplexity --data='texts/*.txt'

--checkpoint takes run directories (their best checkpoint, or the newest if none was evaluated), RUN@STEP,
directories in Hugging Face's format, hf:NAME from the hub, or FILE.gguf. The text is --data (files,
directories, globs, as data.source), or all that was held out when the run's data was prepared. Printed are
the loss in nats a token, perplexity, and bits per byte, which alone compares models across tokenizers. What
is predicted is what the model was trained for: a decoder's next tokens, an encoder's masks, a T5's spans.

  python evaluate.py --checkpoint=runs/sentiment --task=sentiment --output=results/metrics.json
  python evaluate.py --checkpoint=runs/a,runs/b,model.gguf --task=summarization --data=articles.jsonl

A task (a file in tasks/) scores answers to what a run held out, or to all labelled examples in --data, and
shows each metric with its 95 % confidence interval, a baseline, and each model's size, speed and memory.
--output also writes the predictions, and pictures. --fields says where the fields are in a record, as
task.fields does.

  python evaluate.py --checkpoint=runs/a,model.gguf --task=harness:lambada_openai,mmlu --output=metrics.json
  python evaluate.py --checkpoint=runs/a --task=harness:mine --data=tasks/ --examples=100

harness:NAMES are benchmarks of lm-evaluation-harness (requirements-evaluation.txt) for causal models: those
that it brings, or YAMLs in --data=DIRECTORY. Files that a YAML names are looked for where the command runs.
--output writes what the harness gives, and beside it every example with its answers.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import command_line
from configs.errors import UserError
from data.files import write_whole
from parallel.peers import ending_together

CHECKPOINT = flags.DEFINE_list(
    'checkpoint', None, 'Run, RUN@STEP, directory or hf:NAME; several with commas.', required=True
)
TASK = flags.DEFINE_string('task', 'perplexity', "'perplexity', a file in tasks/, or harness:NAMES.")
DATA = flags.DEFINE_string('data', None, 'Text or examples to measure on; default: what the run held out.')
FIELDS = flags.DEFINE_string('fields', None, "Where a task's fields are: 'text=review, label=stars'.")
CHAT = flags.DEFINE_bool('chat', False, "Put a benchmark's prompts into the model's chat template.")
LANGUAGE = flags.DEFINE_string('language', None, "Of a task's answers; 'zh' is scored by characters.")
EXAMPLES = flags.DEFINE_integer('examples', 0, 'Examples of a task at most; 0: all.', lower_bound=0)
OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the metrics to.')
BATCHES = flags.DEFINE_integer('batches', 0, 'Batches of held-out text; 0: all of it.', lower_bound=0)


def main() -> None:
    """Evaluates each checkpoint and prints one row for it."""
    command_line.check_output('output', OUTPUT.value)
    if TASK.value == 'perplexity':
        measure_text()
    elif TASK.value.startswith('harness:'):
        run_benchmarks()
    else:
        score_task()


def score_task() -> None:
    """Scores each checkpoint's answers to a task's examples."""
    import jax

    from parallel import processes
    from training import console, run, task_evaluation, task_report

    processes.start()
    choice = task_evaluation.Choice(TASK.value, DATA.value, FIELDS.value, LANGUAGE.value, EXAMPLES.value)
    log = console.Log(None, quiet=not processes.is_main())
    results = {}
    for name in CHECKPOINT.value:
        opened = run.open_run(name)
        jax.set_mesh(opened.mesh)
        results[name] = task_evaluation.evaluate(opened, choice, name)
        for note in results[name].notes:
            log(note)
    if not processes.is_main():
        return
    log(task_report.table(TASK.value, results))
    if OUTPUT.value:
        for path in task_report.write(Path(OUTPUT.value), TASK.value, results):
            log(f'wrote {path}')


def run_benchmarks() -> None:
    """Asks each checkpoint the benchmarks of lm-evaluation-harness."""
    import jax

    from parallel import processes
    from training import console, harness, harness_report, run

    processes.start()
    benchmarks = harness.load(TASK.value, DATA.value, limit=EXAMPLES.value, chat=CHAT.value)
    log = console.Log(None, quiet=not processes.is_main())
    results = {}
    for name in CHECKPOINT.value:
        opened = run.open_run(name)
        jax.set_mesh(opened.mesh)
        results[name], notes = harness.evaluate(opened, benchmarks, name)
        for note in notes:
            log(note)
    if not processes.is_main():
        return
    log(harness_report.table(results))
    if OUTPUT.value:
        for path in harness_report.write(Path(OUTPUT.value), results):
            log(f'wrote {path}')


def measure_text() -> None:
    """Measures each checkpoint on text."""
    import jax

    import objectives
    from data import loader
    from parallel import mesh as meshes
    from parallel import processes
    from training import console, run
    from training.evaluation import Evaluator

    processes.start()
    results = {}
    for name in CHECKPOINT.value:
        opened = run.open_run(name)
        if opened.config.task.name:
            raise UserError(
                f'--checkpoint={name} was trained for a task; score it with --task={opened.config.task.name}.'
            )
        jax.set_mesh(opened.mesh)
        objective = objectives.get(opened.config.objective)
        opened.config.batch_size = meshes.fitting_batch(opened.mesh, opened.config)
        opened.config.eval_batches = BATCHES.value
        choose_text(opened.config, name)
        objective.check(opened.config, opened.model.config, opened.tokenizer)
        rows = meshes.local_rows(opened.mesh, opened.config.batch_size)
        held_out = loader.held_out(opened.config, rows=rows, tokenizer=opened.tokenizer)
        evaluate = Evaluator(opened.model, objective, opened.config, opened.mesh, held_out, BATCHES.value)
        num_params = sum(leaf.size for leaf in jax.tree.leaves(opened.params))
        results[name] = {'step': opened.step, 'num_params': num_params, **evaluate(opened.params)}
    if not processes.is_main():
        return
    columns = [key for key in next(iter(results.values())) if key.count('/') < 2]
    rows = table_rows(results, columns)
    console.Log(None)(console.table('Held-out text', ['checkpoint', *columns], rows))
    if OUTPUT.value:
        write_whole(Path(OUTPUT.value), (json.dumps(results, indent=2) + '\n').encode())


def table_rows(results: dict[str, dict[str, float]], columns: list[str]) -> list[tuple]:
    """Returns a row for each checkpoint, and below it one for each source of its mixture, if it has one."""
    rows = []
    for name, result in results.items():
        rows.append((name, *(_rounded(result.get(key, '-')) for key in columns)))
        sources = [key.split('/')[1] for key in result if key.count('/') == 2 and key.endswith('/loss')]
        for source in sources:
            keys = [key.replace('eval/', f'eval/{source}/') for key in columns]
            cells = (_rounded(result.get(key, '-')) if '/' in key else '' for key in keys)
            rows.append((f'  {source}', *cells))
    return rows


def _rounded(value: float | str) -> float | str:
    return round(value, 4) if isinstance(value, float) else value


def choose_text(config: ConfigDict, checkpoint: str) -> None:
    """Sets the text of --data; UserError if there is neither that nor what a run held out."""
    if DATA.value:
        config.data.source = DATA.value
        config.data.mixture.names = ()
        config.data.mode = 'stream'
        config.data.eval_fraction = 1.0
    elif not Path(checkpoint.partition('@')[0], 'checkpoints').is_dir():
        raise UserError(f'--checkpoint={checkpoint} is a published model; give --data=FILE to measure it on.')


if __name__ == '__main__':
    command_line.run(ending_together(main), __doc__ or '')
