"""What of lm-evaluation-harness's adapter needs no harness: its absence, and the report of its results."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
from rich.console import Console

from configs.errors import UserError
from training import harness_report


def result(accuracy: float, error: float | str) -> dict:
    """What the harness's simple_evaluate returns, in short."""
    scores = {
        'name': 'mine',
        'alias': 'mine',
        'sample_len': 2,
        'acc,none': accuracy,
        'acc_stderr,none': error,
    }
    return {
        'results': {'mine': scores},
        'n-samples': {'mine': {'original': 9, 'effective': 2}},
        'n-shot': {'mine': 5},
        'higher_is_better': {'mine': {'acc': True}},
        'configs': {'mine': {'process_docs': len}},
        'samples': {'mine': [{'doc_id': 0, 'doc': {'text': '你好'}, 'acc': accuracy}]},
        'lm_eval_version': '0.4.13',
    }


def test_without_the_harness_its_benchmarks_say_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, 'training.harness', raising=False)
    monkeypatch.setitem(sys.modules, 'lm_eval', None)
    monkeypatch.setitem(sys.modules, 'lm_eval.api.instance', None)
    with pytest.raises(UserError, match=r'pip install -r requirements-evaluation\.txt'):
        importlib.import_module('training.harness')


def test_checkpoints_stand_side_by_side_with_standard_errors():
    console = Console(width=140)
    with console.capture() as captured:
        console.print(harness_report.table({'a': result(0.5, 0.25), 'b': result(0.75, 'N/A')}))
    lines = [line.split() for line in captured.get().splitlines()]
    assert ['benchmark', 'examples', 'shots', 'filter', 'metric', 'a', 'b'] in lines
    assert ['mine', '2', '5', 'none', 'acc', '↑', '0.5000', '±', '0.2500', '0.7500'] in lines


def test_what_the_harness_gave_is_written_and_beside_it_every_example(tmp_path):
    results = {'a': result(0.5, 0.25), 'b': result(0.75, 'N/A')}
    written = harness_report.write(tmp_path / 'metrics.json', results)
    assert [path.name for path in written] == [
        'metrics.json',
        'metrics.0.predictions.jsonl',
        'metrics.1.predictions.jsonl',
    ]
    content = json.loads(written[0].read_text())
    assert content['b']['results'] == results['b']['results']
    assert 'samples' not in content['b']
    (line,) = written[2].read_text(encoding='utf-8').splitlines()
    assert json.loads(line) == {'task': 'mine', 'doc_id': 0, 'doc': {'text': '你好'}, 'acc': 0.75}
