"""plan.py on the command line: plans of this machine and of TPUs, and mistakes refused before compiling."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='compiling for TPUs needs libtpu: pip install -r requirements-tpu.txt',
)


@pytest.fixture
def plan(tmp_path):
    def run(*arguments: str, devices: int = 1) -> subprocess.CompletedProcess:
        environment = os.environ | {
            'HOME': str(tmp_path),  # where plans are kept
            'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}',
        }
        command = [sys.executable, 'plan.py', *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--topology=v5e:3x3'], 'There are 1x1, 2x2'),
        (['--topology=v9:4x4'], 'Known are v4, v5e, v5p, v6e, tpu7x'),
        (['--topology=1*v5e:4x4'], "'1' is no number of slices"),
        (['--topology=2*v4:2x2x2'], 'plans of several slices are made for v5e, v5p, v6e'),
        (['--price=1.2'], 'add --tokens'),
        (['--config.mesh.fsdp=3'], 'does not fit 1 devices'),
        (['--config.batch_size=9', '--config.grad_accumulation=2'], 'does not divide'),
        (['--tokens=-1'], 'must be above 0'),
        (['--flops=1e20'], 'leave one of them out'),
        (['--config.model.vocab_blocks=7'], 'use a divisor of 512'),
    ],
)
def test_mistakes_are_refused(plan, arguments, message):
    done = plan('--config=configs/llama.py:smoke', *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--flops=1e20', '--mesh=auto'], '--mesh=auto is for the plan of a run'),
        (['--flops=1e20', '--picture=plan.png'], '--picture=plan.png is for the plan of a run'),
        (['--flops=1e20', '--hours=3', '--topology=v5e:4x4'], 'two budgets'),
        (['--hours=3'], 'needs to know of which devices'),
        (['--hours=3', '--topology=v5e:4x4', '--mfu=1.5'], 'mfu'),
    ],
)
def test_mistakes_in_a_budget_are_refused(plan, arguments, message):
    done = plan(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_plan_of_this_machine_and_again_at_once(plan, tmp_path):
    arguments = (
        *('--config=configs/llama.py:smoke', '--config.mesh.fsdp=4', '--config.mesh.data=2'),
        *('--json', '--tokens=1e6', '--price=2', f'--picture={tmp_path / "plan.png"}'),
    )
    first = plan(*arguments, devices=8)
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    step = made['step']
    assert step['mesh'] == {'data': 2, 'fsdp': 4, 'tensor': 1, 'context': 1}
    # Every parameter but the norms is cut over fsdp.
    assert step['num_params'] / 4 * 4 <= step['parameters'] < 1.01 * step['num_params'] / 4 * 4
    assert step['optimizer'] == pytest.approx(2 * step['parameters'], abs=16)
    kinds = {(each['kind'], tuple(each['axes'])) for each in step['collectives']}
    assert {('all-gather', ('fsdp',)), ('reduce-scatter', ('fsdp',))} <= kinds
    assert made['run']['dollars'] == pytest.approx(made['run']['hours'] * 8 * 2)
    assert made['fits']
    assert made['roofline']['seconds'] > 0
    assert (tmp_path / 'plan.png').stat().st_size > 10_000
    assert plan(*arguments, devices=8).stdout == first.stdout, 'measured peaks are kept with the plan'


def test_a_plan_of_fine_tuning_knows_its_examples(plan):
    # The task decides objective and head, and its examples the classes: 25 parameters more for each.
    def num_params(*options):
        done = plan(
            '--config=configs/finetune.py:sentiment:smoke', '--config.task.epochs=2', '--json', *options
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)['step']['num_params']

    four = "--config.task.labels=('negative', 'positive', 'neither', 'both')"
    assert num_params(four) - num_params() == 2 * (64 + 1)


def test_the_best_layout_is_looked_for(plan):
    done = plan('--config=configs/llama.py:smoke', '--mesh=auto', '--candidates=2', '--json', devices=8)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len(made['ranking']) == 2
    times = [each['roofline']['seconds'] for each in made['ranking']]
    assert times == sorted(times)


def test_budgets_become_models(plan):
    made = json.loads(plan('--hours=24', '--topology=v5e:16x16', '--json').stdout)
    assert made['flops'] == pytest.approx(24 * 3600 * 256 * 197e12 * 0.4)
    for each in made['proposals']:
        assert 6 * each['params'] * each['tokens'] == pytest.approx(made['flops'])


@needs_libtpu
def test_a_plan_of_tpus_that_are_not_here(plan):
    arguments = (
        *('--config=configs/llama.py:60m', '--config.model.num_layers=2', '--config.model.vocab_blocks=2'),
        *('--config.model.embed_dim=1024', '--config.model.num_heads=16', '--config.model.mlp_dim=2816'),
        *('--config.batch_size=64', '--config.grad_accumulation=1', '--config.gradient_dtype=bfloat16'),
        *('--config.tokenizer.vocab_size=8192', '--config.sequence_length=512', '--json'),
    )
    # Of a slice whose dimensions are rings: on v5e:4x4 libtpu all-reduces (docs/planning.md).
    done = plan(*arguments, '--topology=v4:4x4x4')
    assert done.returncode == 0, done.stderr
    step = json.loads(done.stdout)['step']
    # Gathered forwards and backwards, and summed into shards: three times the parameters in bfloat16, less
    # the table, which is looked up without a second gather. A little is all-reduced: norms, odd sizes.
    wire = sum(each['wire'] for each in step['collectives'])
    assert wire < 1.1 * 3 * 2 * step['num_params'] * 63 / 64
    whole = sum(each['wire'] for each in step['collectives'] if each['kind'] == 'all-reduce')
    assert whole < 0.1 * wire


@needs_libtpu
@pytest.mark.parametrize(('topology', 'alone'), [('v6e:4x4', 0.1), ('v4:2x2x4', 0.6)])
def test_what_compilers_are_told_lets_sending_and_computing_overlap(plan, topology, alone):
    arguments = (
        *('--config=configs/llama.py:60m', '--config.gradient_dtype=bfloat16', '--json'),
        *('--config.model.embed_dim=2048', '--config.model.num_heads=16', '--config.model.mlp_dim=5632'),
        *('--config.batch_size=32', '--config.grad_accumulation=2', '--config.tokenizer.vocab_size=8192'),
        f'--topology={topology}',
    )
    done = plan(*arguments)
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)['step']['collectives']
    assert sum(each['alone'] for each in sent) < alone * sum(each['wire'] for each in sent)


@needs_libtpu
def test_slices_send_each_other_shards_of_the_gradients_alone(plan):
    smoke = ('--config=configs/llama.py:smoke', '--topology=2*v5e:2x2', '--config.batch_size=16')
    done = plan(*smoke, '--config.mesh.data=2', '--config.mesh.fsdp=4', '--json')
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    (between,) = [each for each in made['step']['collectives'] if each['axes'] == ['slices']]
    # Float32, summed within a slice before. Norms are whole on every device, and arrays padded to tiles.
    shard = made['step']['num_params'] * 4 / 4
    assert shard < between['wire'] < 1.2 * shard
    assert made['roofline']['links']['slices'] == pytest.approx(between['wire'] / 3.125e9)
    refused = plan(*smoke, '--config.mesh.data=1', '--config.mesh.fsdp=8')
    assert refused.returncode == 2
    assert 'make data a multiple of 2' in refused.stderr


@needs_libtpu
def test_optimizer_state_on_the_host_makes_room(plan):
    # 1.1 billion parameters, of which Adam needs 12 bytes each, beside gradients, on one chip of 16.9 GB.
    arguments = (
        *('--config=configs/llama.py:1b', '--topology=v5e:1x1', '--config.gradient_dtype=bfloat16'),
        *('--config.batch_size=1', '--config.grad_accumulation=1', '--config.model.remat=full'),
    )
    done = plan(*arguments)
    assert done.returncode == 1, done.stderr
    assert 'optimizer.offload=True' in ''.join(done.stdout.split())
    done = plan(*arguments, '--config.optimizer.offload=True', '--json')
    assert done.returncode == 0, done.stderr
    step = json.loads(done.stdout)['step']
    assert (step['optimizer'], step['host']) == (0, pytest.approx(8 * step['num_params'], rel=1e-3))
    assert step['peak'] < 13e9


@needs_libtpu
def test_what_does_not_fit_says_what_would(plan):
    done = plan(
        *('--config=configs/llama.py:1b', '--topology=v5e:1x1', '--config.batch_size=8'),
        *('--config.grad_accumulation=1', '--config.model.remat=none', '--config.model.num_layers=30'),
    )
    assert done.returncode == 1, done.stderr
    assert 'does not fit' in ' '.join(done.stdout.split())  # lines are broken where the terminal ends
    assert '--topology=' in done.stdout or '--config.' in done.stdout
