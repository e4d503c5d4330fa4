"""Answers of encoder-decoders token by token, and filled masks, against transformers."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from model.decoding import Decoding
from model.generation import generate

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.data import tiny_tokenizers  # noqa: E402
from tests.model.test_huggingface import open_model  # noqa: E402
from tests.parity import architectures  # noqa: E402
from tests.parity.test_scripts import script  # noqa: E402

pytestmark = pytest.mark.slow

NEW = 40
PROMPTS = [[5, 9, 3, 9, 5, 9, 2], [7, 8, 9, 10, 11, 12, 13, 7, 8, 2], [4, 2]]
SETTINGS = [
    {},
    {'repetition_penalty': 1.3},
    {'no_repeat_ngram_size': 2, 'min_new_tokens': 10},
    {'num_beams': 4, 'num_return_sequences': 3},
    {'num_beams': 3, 'length_penalty': 2.0, 'early_stopping': True},
]


@pytest.fixture(scope='module', params=['t5', 'marian'])
def pair(request, tmp_path_factory):
    """(the model in transformers, ours, our parameters, an id that ends some texts early)."""
    theirs = architectures.make(request.param)
    directory = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(directory)
    return (
        theirs,
        *open_model(directory),
        int(answers(theirs, PROMPTS[0], None, {'no_repeat_ngram_size': 1})[0][6]),
    )


def answers(theirs, prompt, eos_id, settings):
    """The new tokens of one prompt, [num_return_sequences, NEW], filled up with pad."""
    tokens = torch.tensor([prompt])
    out = theirs.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=eos_id,
        pad_token_id=0,
        **settings,
    )
    new = out[:, 1:].numpy()
    return np.pad(new, ((0, 0), (0, NEW - new.shape[1])))


@pytest.mark.parametrize('ends', [False, True], ids=['free', 'eos'])
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_answers_are_those_of_transformers(pair, settings, ends):
    theirs, ours, params, eos = pair
    decoding = Decoding(NEW, temperature=0, **settings)
    found = generate(
        ours, params, PROMPTS, decoding, key=jax.random.key(0), eos_id=eos if ends else -1, pad_id=0
    )
    expected = [answers(theirs, prompt, eos if ends else None, settings) for prompt in PROMPTS]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_masks_are_filled_as_transformers_fills_them(tmp_path):
    directory = tiny_tokenizers.bert(tmp_path / 'bert')
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.BertConfig(**(architectures.BERT | {'vocab_size': len(tokenizer)}))
    model = transformers.BertForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    text = 'the quick [MASK] fox'
    expected = transformers.pipeline('fill-mask', model=model, tokenizer=tokenizer)(text, top_k=4)
    output = tmp_path / 'out.jsonl'
    flags = (f'--prompt={text}', '--top_k=4', f'--output={output}')
    script('generate.py', f'--checkpoint={directory}', *flags)
    result = json.loads(output.read_text())
    (found,) = result['candidates']
    assert [probability for _, probability in found] == pytest.approx(
        [e['score'] for e in expected], abs=1e-5
    )
    assert result['completions'] == [expected[0]['sequence']]
