"""What the scripts print and write, beside transformers on the same files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.data import tiny_tokenizers  # noqa: E402

ROOT = Path(__file__).parents[2]


def script(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def continue_prompt(directory: Path, prompt: str, **options: object) -> str:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    inputs = tokenizer(prompt, return_tensors='pt')
    output = model.generate(**inputs, pad_token_id=tokenizer.eos_token_id, **options)
    return tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.fixture(scope='module')
def gpt2(tmp_path_factory) -> Path:
    """A random GPT-2 as `save_pretrained` publishes it."""
    directory = tiny_tokenizers.gpt2(tmp_path_factory.mktemp('hub') / 'gpt2')
    end = transformers.AutoTokenizer.from_pretrained(directory).eos_token_id
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, n_positions=96, vocab_size=end + 1, bos_token_id=end, eos_token_id=end
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize('beams', [1, 4])
def test_once_upon_a_time(gpt2, beams):
    expected = continue_prompt(gpt2, 'Once upon a time', max_length=50, num_beams=beams)
    flags = ('--prompt=Once upon a time', '--max_length=50', f'--num_beams={beams}')
    assert script('generate.py', f'--checkpoint={gpt2}', *flags) == expected + '\n'


def test_transformers_continues_what_lathe_trained(tmp_path):
    (tmp_path / 'text.txt').write_text((ROOT / 'README.md').read_text() * 3, encoding='utf-8')
    flags = ('--config=configs/quickstart.py:smoke', f'--config.data.path={tmp_path / "prepared"}')
    flags += ('--config.data.eval_fraction=0.1',)
    script('prepare.py', *flags, f'--config.data.source={tmp_path / "text.txt"}')
    script('train.py', *flags, f'--workdir={tmp_path / "run"}', '--config.model.max_length=64')
    script('convert.py', f'--from={tmp_path / "run"}', f'--to={tmp_path / "hub"}', '--format=huggingface')
    for prompt in ('Returns the', '    中文 two  spaces\n'):
        ours = script(
            'generate.py',
            f'--checkpoint={tmp_path / "run"}',
            f'--prompt={prompt}',
            '--max_length=60',
            '--temperature=0',
        )
        assert ours == continue_prompt(tmp_path / 'hub', prompt, max_length=60, do_sample=False) + '\n'
