"""Generation token by token against transformers, on a random GPT-2 with the same weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from model.decoding import Decoding
from model.generation import generate

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.model.test_huggingface import open_model  # noqa: E402

pytestmark = pytest.mark.slow

LAYERS, WIDTH, HEADS, VOCABULARY, LENGTH = 2, 32, 4, 61, 128
PAD, NO_EOS, NEW = 60, -1, 50
PROMPTS = [[5, 9, 3, 9, 5, 9], [7, 8, 9, 10, 11, 12, 13, 7, 8], [4]]


@pytest.fixture(scope='module')
def reference():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope='module')
def ours(reference, tmp_path_factory):
    directory = tmp_path_factory.mktemp('gpt2')
    reference.save_pretrained(directory)
    return open_model(directory)


@pytest.fixture(scope='module')
def model(ours):
    return ours[0]


@pytest.fixture(scope='module')
def params(ours):
    return ours[1]


@pytest.fixture(scope='module')
def eos(reference):
    """An id that ends greedy texts and beams early, but not at once."""
    texts = [transformers_text(reference, prompt, Decoding(NEW, temperature=0), NO_EOS) for prompt in PROMPTS]
    return int(texts[0][0][12])


def transformers_text(reference, prompt, decoding, eos_id):
    """The new tokens of one prompt, [num_return_sequences, NEW], filled up with PAD."""
    keys = {
        'max_new_tokens': decoding.max_new_tokens,
        'min_new_tokens': decoding.min_new_tokens,
        'repetition_penalty': float(decoding.repetition_penalty),
        'no_repeat_ngram_size': decoding.no_repeat_ngram_size,
        'num_beams': decoding.num_beams,
        'num_return_sequences': decoding.num_return_sequences,
    }
    if decoding.num_beams > 1:
        keys |= {
            'length_penalty': float(decoding.length_penalty),
            'early_stopping': decoding.early_stopping,
        }
    if decoding.eos_ids or eos_id != NO_EOS:
        keys['eos_token_id'] = list(decoding.eos_ids or (eos_id,))
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        out = reference.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, pad_token_id=PAD, **keys
        )
    new = out[:, len(prompt) :].numpy()
    return np.pad(new, ((0, 0), (0, decoding.max_new_tokens - new.shape[1])), constant_values=PAD)


def compare(reference, model, params, decoding, eos_id):
    out = generate(model, params, PROMPTS, decoding, key=jax.random.key(0), eos_id=eos_id, pad_id=PAD)
    expected = [transformers_text(reference, prompt, decoding, eos_id) for prompt in PROMPTS]
    np.testing.assert_array_equal(out, np.concatenate(expected))
    return out


def test_logits_agree(reference, model, params):
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 40))
    ours = jax.jit(model.apply)({'params': params}, tokens.astype(np.int32))
    with torch.no_grad():
        theirs = reference(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # float32, logits of magnitude 10


PROCESSED = [
    {'repetition_penalty': 1.3},
    {'no_repeat_ngram_size': 1, 'max_new_tokens': 40},  # each of 61 ids but once
    {'no_repeat_ngram_size': 2},
    {'no_repeat_ngram_size': 3},
    {'min_new_tokens': 30},
    {'repetition_penalty': 0.8, 'no_repeat_ngram_size': 2, 'min_new_tokens': 20},
]


@pytest.mark.parametrize('ends', [False, True], ids=['free', 'eos'])
@pytest.mark.parametrize('keys', [{}, *PROCESSED], ids=str)
def test_greedy_tokens_are_those_of_transformers(reference, model, params, eos, keys, ends):
    decoding = Decoding(**{'max_new_tokens': NEW, 'temperature': 0, **keys})
    out = compare(reference, model, params, decoding, eos if ends else NO_EOS)
    if ends and not keys:
        assert (out == eos).any()
        assert out[0, -1] == PAD


@pytest.mark.parametrize('num_beams', [1, 3])
@pytest.mark.parametrize('keys', [{}, {'min_new_tokens': 15}], ids=str)
def test_any_of_several_tokens_ends_a_text(reference, model, params, eos, num_beams, keys):
    texts = [transformers_text(reference, prompt, Decoding(NEW, temperature=0), NO_EOS) for prompt in PROMPTS]
    several = (eos, *(int(text[0][20]) for text in texts))
    decoding = Decoding(NEW, temperature=0, num_beams=num_beams, eos_ids=several, **keys)
    out = compare(reference, model, params, decoding, VOCABULARY - 1)
    assert (out[:, -1] == PAD).any()


@pytest.mark.parametrize('ends', [False, True], ids=['free', 'eos'])
@pytest.mark.parametrize('keys', PROCESSED, ids=str)
def test_processed_beams_are_those_of_transformers(reference, model, params, eos, keys, ends):
    decoding = Decoding(**{'max_new_tokens': NEW, 'num_beams': 4, 'num_return_sequences': 4, **keys})
    compare(reference, model, params, decoding, eos if ends else NO_EOS)


BEAMS = [
    (num_beams, length_penalty, early_stopping, True)
    for num_beams in (2, 4, 5)
    for length_penalty in (0.5, 1.0, 2.0)
    for early_stopping in (False, True, 'never')
]
BEAMS += [(4, -1.0, False, True), (4, 0.0, 'never', True)]
BEAMS += [(num_beams, 1.0, False, False) for num_beams in (2, 4, 5)]  # without eos, all lengths are equal


@pytest.mark.parametrize(('num_beams', 'length_penalty', 'early_stopping', 'ends'), BEAMS)
def test_beams_are_those_of_transformers(
    reference, model, params, eos, num_beams, length_penalty, early_stopping, ends
):
    decoding = Decoding(
        NEW,
        num_beams=num_beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        num_return_sequences=2,
    )
    compare(reference, model, params, decoding, eos if ends else NO_EOS)
