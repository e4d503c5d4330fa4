"""What is left of benchmarks of lm-evaluation-harness: a table, metrics.json and the predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from data.files import write_whole
from training import console

DIRECTIONS = {True: '↑', False: '↓'}
SAMPLES = 'samples'  # of the harness's results: each example with its requests, answers and scores


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Returns a row for each metric of each benchmark, and in it each checkpoint's value ± standard error.

    results: of each checkpoint, what the harness's `simple_evaluate` returned.
    """
    first = next(iter(results.values()))
    rows: list[tuple] = []
    for task, scores in first['results'].items():
        count, shots = first['n-samples'].get(task, {}).get('effective', ''), first['n-shot'].get(task, '')
        for key in scores:
            metric, _, kept = key.partition(',')
            if not kept or metric.endswith('_stderr'):  # 'alias' and the like, and what stands beside a value
                continue
            better = DIRECTIONS.get(first['higher_is_better'].get(task, {}).get(metric), '')
            values = (_value(each['results'][task], metric, kept) for each in results.values())
            rows.append((scores['alias'], str(count), str(shots), kept, f'{metric} {better}', *values))
    title = f'lm-evaluation-harness {first["lm_eval_version"]}: values ± standard errors'
    return console.table(title, ['benchmark', 'examples', 'shots', 'filter', 'metric', *results], rows)


def _value(scores: Mapping[str, Any], metric: str, kept: str) -> str:
    value, error = scores[f'{metric},{kept}'], scores.get(f'{metric}_stderr,{kept}')
    if not isinstance(value, float):
        return str(value)
    return f'{value:.4f} ± {error:.4f}' if isinstance(error, float) else f'{value:.4f}'


def write(output: Path, results: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Writes what the harness gave for each checkpoint, and beside it all examples; returns the paths."""
    written = [output]
    for number, result in enumerate(results.values()):
        suffix = f'.{number}' if len(results) > 1 else ''
        path = output.with_name(f'{output.stem}{suffix}.predictions.jsonl')
        lines = (
            _json({'task': task, **sample}) + '\n'
            for task, samples in result[SAMPLES].items()
            for sample in samples
        )
        write_whole(path, ''.join(lines).encode('utf-8', 'surrogatepass'))
        written.append(path)
    content = {
        name: {key: value for key, value in result.items() if key != SAMPLES}
        for name, result in results.items()
    }
    write_whole(output, (_json(content, indent=2) + '\n').encode('utf-8', 'surrogatepass'))
    return written


def _json(value: Any, indent: int | None = None) -> str:
    """Returns JSON; what has no form in it, such as a benchmark's functions, as Python prints it."""
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, 'item') else str(value)
