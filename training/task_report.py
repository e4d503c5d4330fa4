"""What is left of an evaluation of a task: a table, metrics.json, the predictions, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import tasks
from data.files import write_whole
from tasks.metrics import classification
from training import console, plot
from training.task_evaluation import Result


def table(task: str, results: Mapping[str, Result]) -> Table:
    """Returns a row for each checkpoint, and last the baseline that all must beat."""
    first = next(iter(results.values()))
    metrics = list(first.scores)
    best = tasks.get(task).BEST
    rows: list[tuple] = []
    for name, result in results.items():
        cells = [str(result.scores[metric]) if metric in result.scores else '-' for metric in metrics]
        size = f'{result.num_params / 1e6:.1f} M'
        costs = (f'{result.examples_per_second:.1f}/s', f'{result.peak_memory / 1e9:.2f} GB')
        rows.append((name, *cells, size, *costs))
    what, scores = first.baseline
    rows.append((what, *(str(scores[m]) if m in scores else '-' for m in metrics), '', '', ''))
    title = f'{task}: {len(first.examples):,} examples, 95 % confidence intervals; compared by {best}'
    return console.table(title, ['checkpoint', *metrics, 'parameters', 'speed', 'memory'], rows)


def write(output: Path, task: str, results: Mapping[str, Result]) -> list[Path]:
    """Writes metrics.json, and beside it each checkpoint's predictions and pictures; returns the paths."""
    content: dict[str, Any] = {}
    written = [output]
    for number, (name, result) in enumerate(results.items()):
        content[name] = {
            'task': task,
            'metrics': {metric: vars(score) for metric, score in result.scores.items()},
            'baseline': {
                'what': result.baseline[0],
                'metrics': {metric: vars(score) for metric, score in result.baseline[1].items()},
            },
            'examples': len(result.examples),
            'num_params': result.num_params,
            'examples_per_second': result.examples_per_second,
            'peak_memory_bytes': result.peak_memory,
            'notes': result.notes,
        }
        suffix = f'.{number}' if len(results) > 1 else ''
        path = output.with_name(f'{output.stem}{suffix}.predictions.jsonl')
        write_whole(path, _predictions(result).encode('utf-8', 'surrogatepass'))
        written.append(path)
        if len(result.labels) > 1 and not any(';' in prediction.text for prediction in result.predictions):
            path = output.with_name(f'{output.stem}{suffix}.confusion.png')
            plot.draw_confusion(_confusion(task, result), result.labels, path)
            written.append(path)
    write_whole(output, (json.dumps(content, indent=2, ensure_ascii=False) + '\n').encode())
    if len(results) > 1:
        path = output.with_suffix('.png')
        best = tasks.get(task).BEST
        plot.draw_choice(
            best,
            {
                name: (result.scores[best], result.num_params, result.examples_per_second, result.peak_memory)
                for name, result in results.items()
            },
            next(iter(results.values())).baseline[1].get(best),
            path,
        )
        written.append(path)
    return written


def _predictions(result: Result) -> str:
    lines = []
    for example, prediction in zip(result.examples, result.predictions, strict=True):
        record: dict[str, Any] = {'id': example.id, **example.fields, 'prediction': prediction.text}
        if prediction.probabilities is not None:
            pairs = zip(result.labels, prediction.probabilities.tolist(), strict=True)
            record['probabilities'] = {label: round(p, 6) for label, p in pairs}
        lines.append(json.dumps(record, ensure_ascii=False) + '\n')
    return ''.join(lines)


def _confusion(task: str, result: Result) -> np.ndarray:
    module = tasks.get(task)
    true_NC = module.as_booleans([module.answer(e.fields) for e in result.examples], result.labels)
    said_NC = module.as_booleans([each.text for each in result.predictions], result.labels)
    return classification.confusion(true_NC, said_NC)
