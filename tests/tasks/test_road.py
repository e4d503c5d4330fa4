"""From labelled examples to scored answers and to labels, by the scripts themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks import builtin

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# Sums over devices are made in another order: float32 rounding (6e-8) differs, and grows over steps of Adam.
TOLERANCE = 1e-4
SMALL = ['--config.tokenizer.vocab_size=420', '--config.log_every=1']
TRAIN_MESHES = """
import sys
from pathlib import Path
from configs import finetune
import train

directory = Path(sys.argv[1])
for task in ('sentiment', 'question_answering'):
    for mesh in ((8, 1, 1, 1), (2, 2, 2, 1)):
        config = finetune.get_config(task + ':smoke')
        config.task.source = str(directory / f'{task}.jsonl')
        config.tokenizer.vocab_size = 360
        config.num_steps = 8
        config.eval_every = 8
        config.task.eval_examples = 4
        config.sequence_length = 64
        config.model.dropout_rate = 0.0
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context = mesh
        assert train.train(config, directory / f'{task}-{mesh[1]}') == 0
"""


def run(*arguments, check=True, **options):
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> Path:
    """Examples of three tasks, 200 each at most."""
    directory = tmp_path_factory.mktemp('tasks')
    sets = {'sentiment': builtin.opinions(), 'translation': builtin.place_names()}
    for name, found in sets.items():
        records = [record for _, record in found]
        order = np.random.default_rng(0).permutation(len(records))[:200]
        write(directory / f'{name}.jsonl', [records[number] for number in order])
    questions = []
    for number in range(60):
        context = (
            f'Here is text number {number}. ' * 3
            + f'The code is k{number * 7} and no other. '
            + 'More text. ' * 9
        )
        answers = [{'text': f'k{number * 7}', 'answer_start': context.index('k' + str(number * 7))}]
        questions.append(
            {'question': 'What is the code?', 'context': context, 'answers': answers if number % 4 else []}
        )
    write(directory / 'question_answering.jsonl', questions)
    return directory


def write(path: Path, records: list[dict]) -> None:
    path.write_text(
        ''.join(json.dumps(each, ensure_ascii=False) + '\n' for each in records), encoding='utf-8'
    )


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding='utf-8').rstrip('\n').split('\n')


def losses(workdir: Path) -> list[float]:
    records = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [record['loss'] for record in records if 'loss' in record]


def test_losses_and_scores_are_the_same_on_other_meshes(directory):
    environment = os.environ | {
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8'
    }
    run('-c', TRAIN_MESHES, directory, env=environment)
    for task in ('sentiment', 'question_answering'):
        one, cut = directory / f'{task}-1', directory / f'{task}-2'
        assert len(losses(one)) == 8
        np.testing.assert_allclose(losses(one), losses(cut), atol=TOLERANCE)
        scores = [(path / 'metrics.jsonl').read_text().splitlines()[-1] for path in (one, cut)]
        scores = [json.loads(line) for line in scores]
        assert scores[0].keys() == scores[1].keys()


@pytest.fixture(scope='module')
def teacher(directory) -> Path:
    """A run that has learnt opinions."""
    workdir = directory / 'teacher'
    # Long enough that the code's speed counts, not the compiler's: without the flags of tests/conftest.py.
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    run(
        'train.py', '--config=configs/finetune.py:sentiment:mini', f'--workdir={workdir}', *SMALL,
        f'--config.task.source={directory / "sentiment.jsonl"}', '--config.task.epochs=40',
        '--config.data.eval_fraction=0.3', '--config.eval_every=40', env=environment,
    )  # fmt: skip
    return workdir


def test_a_trained_model_is_scored_with_a_baseline_and_its_predictions_are_kept(directory, teacher):
    output = directory / 'results' / 'metrics.json'
    shown = run('evaluate.py', f'--checkpoint={teacher}', '--task=sentiment', f'--output={output}').stdout
    assert "always '" in shown
    result = json.loads(output.read_text())[str(teacher)]
    predictions = [json.loads(line) for line in lines_of(output.parent / 'metrics.predictions.jsonl')]
    accuracy = 100 * np.mean([each['prediction'] == each['label'] for each in predictions])
    assert result['metrics']['accuracy']['value'] == pytest.approx(accuracy)
    assert accuracy > result['baseline']['metrics']['accuracy']['value'] + 20
    assert len(predictions) == result['examples'] > 30
    assert (output.parent / 'metrics.confusion.png').stat().st_size > 1000


def test_several_checkpoints_are_compared_in_one_picture(directory, teacher):
    output = directory / 'choice' / 'metrics.json'
    arguments = [f'--checkpoint={teacher},{teacher}@80', '--task=sentiment', f'--output={output}']
    run('evaluate.py', *arguments, f'--data={directory / "sentiment.jsonl"}', '--examples=20')
    assert len(json.loads(output.read_text())) == 2
    assert output.with_suffix('.png').stat().st_size > 1000


def test_labels_can_be_traced_and_the_doubtful_are_set_aside(directory, teacher):
    unlabelled, output, doubtful = (directory / name for name in ('many.jsonl', 'labels.jsonl', 'ask.jsonl'))
    records = [record for _, record in builtin.opinions()][::4]
    write(unlabelled, records)
    run(
        'label.py', f'--checkpoint={teacher}', f'--input={unlabelled}', f'--output={output}', '--balance',
        '--min_confidence=0.6', f'--uncertain={doubtful}', '--uncertain_count=7',
    )  # fmt: skip
    labels = [json.loads(line) for line in lines_of(output)]
    names = [label['label'] for label in labels]
    assert names.count('positive') == names.count('negative') > 20
    assert all(label['confidence'] >= 0.6 for label in labels)
    truth = {record['text']: record['label'] for record in records}
    assert np.mean([truth[label['text']] == label['label'] for label in labels]) > 0.7
    by = labels[0]['labelled_by']
    assert by['checkpoint'] == str(teacher)
    assert len(by['data_fingerprint']) == 64
    assert len(doubtful.read_text().splitlines()) == 7


def test_texts_without_labels_are_learnt_from(directory):
    workdir = directory / 'consistent'
    run(
        'train.py', '--config=configs/semi_supervised.py:smoke', f'--workdir={workdir}', *SMALL,
        f'--config.task.source={directory / "sentiment.jsonl"}', '--config.task.unlabelled=builtin:opinions',
        '--config.task.consistency_threshold=0.5',
    )  # fmt: skip
    records = [json.loads(line) for line in lines_of(workdir / 'metrics.jsonl')]
    assert (
        0.3 < records[0]['guessed'] < 1
    )  # above one half a class of two is always clear: all but the labelled


EVALUATE = ['evaluate.py', '--checkpoint={teacher}']
TRAIN = ['train.py', '--workdir={directory}/x']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([*EVALUATE, '--task=translation'], 'was not trained for --task=translation'),
        ([*EVALUATE, '--task=sentimental'], "task.name='sentimental'"),
        (
            [*EVALUATE, '--task=summarization', '--data=builtin:docstring-pairs'],
            "task.name='summarization' is done by models that write",
        ),
        (
            [
                'label.py',
                '--checkpoint={teacher}',
                '--input=builtin:opinions',
                '--output={directory}/l.jsonl',
                '--task=classification',
            ],
            'cannot label for --task=classification',
        ),
        (
            [
                *TRAIN,
                '--config=configs/finetune.py:sentiment:smoke',
                '--config.task.source={directory}/one-class.jsonl',
            ],
            'has one class',
        ),
        (
            [
                *TRAIN,
                '--config=configs/finetune.py:summarization:smoke',
                '--config.task.source={directory}/sentiment.jsonl',
            ],
            "has no 'summary|highlights|target|title' for the field 'summary'",
        ),
    ],
)
def test_mistakes_are_told(directory, teacher, arguments, message):
    write(directory / 'one-class.jsonl', [{'text': f'text {n}', 'label': 'a'} for n in range(30)])
    filled = [each.format(teacher=teacher, directory=directory) for each in arguments]
    result = run(*filled, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert 'Traceback' not in result.stderr


def test_labels_never_seen_are_counted_and_left_out(directory, teacher):
    data = directory / 'strange.jsonl'
    write(data, [{'text': 'What a lovely film!', 'label': name} for name in ('positive', 'neutral')])
    shown = run('evaluate.py', f'--checkpoint={teacher}', '--task=sentiment', f'--data={data}').stdout
    assert 'left out: 1 × its label is none of task.labels' in ' '.join(shown.split())
