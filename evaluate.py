"""Measures trained models on held-out text.

  python evaluate.py --checkpoint=runs/quickstart
  python evaluate.py --checkpoint=runs/a,runs/b@500 --output=metrics.json

--checkpoint takes run directories (their best checkpoint, or the newest if none was evaluated) or RUN@STEP.
The text is all that was held out when the run's data was prepared. Printed are the loss in nats a token,
perplexity, and bits per byte, which alone compares models with different tokenizers.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from configs import command_line

CHECKPOINT = flags.DEFINE_list(
    'checkpoint', None, 'Run directory, or RUN@STEP; several with commas.', required=True
)
OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the metrics to.')
BATCHES = flags.DEFINE_integer('batches', 0, 'Batches of held-out text; 0: all of it.', lower_bound=0)


def main() -> None:
    """Evaluates each checkpoint and prints one row for it."""
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
        jax.set_mesh(opened.mesh)
        objective = objectives.get(opened.config.objective)
        opened.config.batch_size = meshes.fitting_batch(opened.mesh, opened.config)
        opened.config.eval_batches = BATCHES.value
        rows = meshes.local_rows(opened.mesh, opened.config.batch_size)
        held_out = loader.load(opened.config, split='eval', rows=rows, tokenizer=opened.tokenizer)
        evaluate = Evaluator(opened.model, objective, opened.config, opened.mesh, held_out, BATCHES.value)
        num_params = sum(leaf.size for leaf in jax.tree.leaves(opened.params))
        results[name] = {'step': opened.step, 'num_params': num_params, **evaluate(opened.params)}
    if not processes.is_main():
        return
    columns = list(next(iter(results.values())))
    rows = [
        (name, *(round(v, 4) if isinstance(v := result.get(column, '-'), float) else v for column in columns))
        for name, result in results.items()
    ]
    console.Log(None)(console.table('Held-out text', ['checkpoint', *columns], rows))
    if OUTPUT.value:
        path = Path(OUTPUT.value)
        beside = path.with_name(path.name + '.tmp')
        beside.write_text(json.dumps(results, indent=2) + '\n', encoding='utf-8')
        beside.replace(path)


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
