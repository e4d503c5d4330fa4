"""Published models as users meet them: opened, measured, converted both ways, refused when broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.errors import UserError
from model.decoding import Decoding
from tests.data import tiny_tokenizers
from training import pretrained, run, sampling
from training.prompts import encode_prompt

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT / 'tests' / 'references'


@pytest.fixture(scope='module')
def published(tmp_path_factory) -> Path:
    """GPT-2 in the hub's format: the reference's weights under the tokenizer's larger vocabulary."""
    directory = tiny_tokenizers.gpt2(tmp_path_factory.mktemp('hub') / 'gpt2')
    ids = json.loads((directory / 'config.json').read_text())
    size = ids['eos_token_id'] + 1
    values = json.loads((REFERENCES / 'gpt2' / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps(values | ids | {'vocab_size': size}))
    tensors = load_file(REFERENCES / 'gpt2' / 'model.safetensors')
    width = tensors['transformer.wte.weight'].shape[1]
    table = np.random.default_rng(0).normal(0, 0.3, (size, width)).astype(np.float32)
    save_file(tensors | {'transformer.wte.weight': table}, directory / 'model.safetensors')
    return directory


def script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def texts(opened: run.Run) -> list[str]:
    prompt = encode_prompt(opened.model, opened.tokenizer, 'the quick')
    return sampling.complete(
        opened.model,
        opened.params,
        opened.tokenizer,
        [prompt],
        Decoding(max_new_tokens=12, temperature=0),
        key=jax.random.key(0),
    )


def test_a_model_goes_to_a_run_and_back_unchanged(published, tmp_path):
    opened = run.open_run(str(published))
    run.save_as_run(opened, tmp_path / 'run')
    again = run.open_run(str(tmp_path / 'run'))
    assert again.model.config == opened.model.config
    assert again.tokenizer.fingerprint == opened.tokenizer.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.params, opened.params)
    assert texts(again) == texts(opened)

    pretrained.save(tmp_path / 'back', again.model.config, again.params, again.tokenizer)
    original, written = (load_file(path / 'model.safetensors') for path in (published, tmp_path / 'back'))
    assert original.keys() == written.keys()
    for name, tensor in original.items():
        np.testing.assert_array_equal(written[name], tensor)
    assert texts(run.open_run(str(tmp_path / 'back'))) == texts(opened)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['back', 'run']


def test_five_lines_of_python(published):
    opened = run.open_run(str(published))
    ids = opened.tokenizer.encode_prompt('the quick')
    (made,) = opened.generate([ids], max_length=len(ids) + 12)
    assert len(made) == len(ids) + 12
    assert opened.tokenizer.decode(made) == texts(opened)[0]
    beams = opened.generate([ids, ids[:1]], max_new_tokens=5, num_beams=3, num_return_sequences=2)
    assert [row[: len(ids)].tolist() for row in beams[:2]] == [ids.tolist()] * 2
    assert [row[:1].tolist() for row in beams[2:]] == [ids[:1].tolist()] * 2


def test_a_name_on_the_hub_is_found_in_its_cache(published, tmp_path, monkeypatch):
    # The layout of huggingface_hub's cache, as a download of gpt2 at this revision leaves it.
    revision = '607a30d783dfa663caf39e06633721c8d4cfcd7e'
    repository = tmp_path / 'models--openai-community--gpt2'
    shutil.copytree(published, repository / 'snapshots' / revision)
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text(revision)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    for name in ('hf:openai-community/gpt2', f'hf:openai-community/gpt2@{revision}'):
        found = pretrained.find(name)
        assert found is not None
        assert found.path.name == revision
    with pytest.raises(UserError, match=r'hf:openai-community/gpt3 could not be fetched'):
        pretrained.find('hf:openai-community/gpt3')


def test_generation_follows_the_models_own_settings(published, tmp_path):
    directory = Path(shutil.copytree(published, tmp_path / 'gpt2'))
    assert pretrained.find(str(directory)).decoding == Decoding(temperature=0.0)
    settings = {'do_sample': True, 'temperature': 0.6, 'top_p': 0.9}
    (directory / 'generation_config.json').write_text(json.dumps(settings))
    expected = Decoding(temperature=0.6, top_k=50, top_p=0.9)
    assert pretrained.find(str(directory)).decoding == expected


def test_beams_penalties_and_ends_are_the_models_own(published, tmp_path, capsys):
    directory = Path(shutil.copytree(published, tmp_path / 'gpt2'))
    settings = {'num_beams': 3, 'no_repeat_ngram_size': 2, 'eos_token_id': [1, 7], 'typical_p': 0.5}
    (directory / 'generation_config.json').write_text(json.dumps(settings))
    expected = Decoding(temperature=0.0, num_beams=3, no_repeat_ngram_size=2, eos_ids=(1, 7))
    assert pretrained.find(str(directory)).decoding == expected
    assert 'typical_p=0.5 is not known to Lathe' in capsys.readouterr().err


@pytest.mark.parametrize(
    'settings',
    [
        {'num_beams': 'x'},
        {'eos_token_id': 'x'},
        {'do_sample': 'maybe'},
        {'do_sample': True, 'temperature': 'hot'},
    ],
    ids=str,
)
def test_settings_of_a_wrong_type_are_refused(published, tmp_path, settings):
    directory = Path(shutil.copytree(published, tmp_path / 'gpt2'))
    (directory / 'generation_config.json').write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r'generation_config.json asks for what cannot be done'):
        pretrained.find(str(directory))


def test_ids_and_settings_are_checked(published):
    opened = run.open_run(str(published))
    for prompts in ([], [[]], [[10**6]], [[-1]]):
        with pytest.raises(UserError, match=r'prompts must be one or more lists of ids, each from 0 to'):
            opened.generate(prompts)
    with pytest.raises(UserError, match=r"no setting 'do_sample'; there are max_new_tokens"):
        opened.generate([[1]], do_sample=True)
    with pytest.raises(UserError, match=r'no text'):
        opened.embed([])


def test_nothing_beside_a_new_directory_is_removed(published, tmp_path):
    (tmp_path / 'new.tmp').mkdir()
    (tmp_path / 'new.tmp' / 'notes.txt').write_text('kept')
    with pytest.raises(UserError, match=r'new\.tmp is there, where new is written first'):
        run.save_as_run(run.open_run(str(published)), tmp_path / 'new')
    assert (tmp_path / 'new.tmp' / 'notes.txt').read_text() == 'kept'


def test_a_tokenizer_with_more_ids_than_the_table_is_refused(published, tmp_path):
    directory = Path(shutil.copytree(published, tmp_path / 'gpt2'))
    values = json.loads((directory / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps(values | {'vocab_size': 100}))
    with pytest.raises(UserError, match=r'the tokenizer has \d+ ids, but config.json says vocab_size=100'):
        run.open_run(str(directory))


@pytest.mark.slow
def test_scripts_take_a_published_model(published, tmp_path):
    (tmp_path / 'text.txt').write_text('the quick brown fox\n\njumps over the lazy dog\n' * 20)
    made = script('generate.py', f'--checkpoint={published}', '--prompt=the quick', '--max_new_tokens=12')
    assert made.returncode == 0, made.stderr
    assert made.stdout == texts(run.open_run(str(published)))[0] + '\n'

    converted = script('convert.py', f'--from={published}', f'--to={tmp_path / "run"}')
    assert converted.returncode == 0, converted.stderr
    checkpoints = f'--checkpoint={published},{tmp_path / "run"}'
    output = tmp_path / 'metrics.json'
    measured = script('evaluate.py', checkpoints, f'--data={tmp_path / "text.txt"}', f'--output={output}')
    assert measured.returncode == 0, measured.stderr
    first, second = json.loads(output.read_text()).values()
    assert first == second
    assert first['eval/perplexity'] > 1

    for command, message in (
        (('evaluate.py', f'--checkpoint={published}'), 'is a published model; give --data'),
        (('convert.py', f'--from={published}', f'--to={tmp_path}'), 'is there and not empty'),
        (('generate.py', '--checkpoint=nothing', '--prompt=a'), 'nothing does not exist'),
        (('generate.py', '--checkpoint=docs', '--prompt=a'), 'docs has no checkpoints/'),
        (
            ('generate.py', f'--checkpoint={published}', '--prompt=a', '--num_return_sequences=2'),
            'would be the same',
        ),
    ):
        refused = script(*command)
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr
        assert 'Traceback' not in refused.stderr
