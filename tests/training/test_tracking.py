import json

import pytest

from configs import base
from configs.errors import UserError
from training.plot import draw_loss
from training.tracking import Tracker, read_metrics


def config(**changes):
    experiment = base.get_config()
    experiment.update_from_flattened_dict(changes)
    return experiment


def test_records_are_visible_at_once_and_always_have_a_step(tmp_path):
    tracker = Tracker(tmp_path, config(), step=0, facts={})
    tracker.log(3, {'loss': 2.5})
    assert read_metrics(tmp_path / 'metrics.jsonl') == [{'step': 3, 'loss': 2.5}]
    tracker.close()


def test_resuming_drops_the_steps_that_will_be_made_again(tmp_path):
    lines = [json.dumps({'step': step, 'loss': 1.0 / step}) for step in range(1, 8)]
    (tmp_path / 'metrics.jsonl').write_text('\n'.join([*lines, '{"step": 8, "lo']))
    tracker = Tracker(tmp_path, config(), step=5, facts={})
    tracker.log(6, {'loss': 0.5})
    tracker.close()
    records = read_metrics(tmp_path / 'metrics.jsonl')
    assert [record['step'] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[4] == {'step': 5, 'loss': 0.2}


@pytest.mark.parametrize('line', ['[1, 2]', '{"loss": 1.0}', '{"step": 2, "lo'])
def test_a_line_that_is_no_record_is_named_and_nothing_lost(tmp_path, line):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r'metrics.jsonl:2 is no record'):
        Tracker(tmp_path, config(), step=1, facts={})
    assert len(path.read_text().splitlines()) == 3


def test_tensorboard_files_hold_the_metrics(tmp_path):
    tracker = Tracker(tmp_path, config(tensorboard=True), step=0, facts={})
    tracker.log(1, {'eval/loss': 2.5})
    tracker.log_samples(1, ['Once upon a time'])
    tracker.close()
    (events,) = (tmp_path / 'tensorboard').iterdir()
    assert b'eval/loss' in events.read_bytes()
    assert b'Once upon a time' in events.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::ResourceWarning')
def test_weights_and_biases_continues_the_same_run_offline(tmp_path, monkeypatch):
    """No network: the run is written to RUN/wandb, to be sent later by `wandb sync`."""
    monkeypatch.setenv('WANDB_SILENT', 'true')
    offline = config(**{'wandb.mode': 'offline', 'wandb.tags': ('a', 'b')})
    identities = []
    for step in (0, 1):
        tracker = Tracker(tmp_path, offline, step=step, facts={'code_version': 'abc'})
        tracker.log(step + 1, {'loss': 1.0})
        identities.append((tmp_path / 'wandb_run_id').read_text())
        tracker.close()
    assert identities[0] == identities[1]
    runs = sorted((tmp_path / 'wandb').glob('offline-run-*'))
    assert len(runs) == 2
    assert all(identities[0] in run.name for run in runs)  # wandb numbers two of one second
    assert all(list(run.glob('*.wandb')) for run in runs)


def test_the_picture_is_drawn_from_the_metrics(tmp_path):
    with (tmp_path / 'metrics.jsonl').open('w') as file:
        for step in range(1, 20):
            file.write(
                json.dumps({'step': step, 'loss': 5.0 / step, **({'eval/loss': 4.0} if step == 10 else {})})
                + '\n'
            )
    draw_loss(tmp_path / 'metrics.jsonl', tmp_path / 'loss.png')
    assert (tmp_path / 'loss.png').read_bytes().startswith(b'\x89PNG')
    assert [path.name for path in sorted(tmp_path.iterdir())] == ['loss.png', 'metrics.jsonl']
