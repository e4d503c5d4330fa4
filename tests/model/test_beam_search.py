"""Beam search against a plain one in NumPy, and against every text there is."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.beam_search import make_ranking, search
from model.decoding import Decoding
from model.generation import _search, generate
from model.logits import forbid_ngrams, make_processors, penalize_repetition

EOS, PAD, VOCABULARY, NEW = 2, 0, 7, 6
PROMPTS = [[3, 4], [5], [6, 1, 1, 4]]


@pytest.fixture(scope='module')
def table():
    """Log-probabilities of the next token given the last two."""
    logits = np.random.default_rng(0).normal(0, 1.5, (VOCABULARY, VOCABULARY, VOCABULARY))
    return np.asarray(jax.nn.log_softmax(logits.astype(np.float32)))


def beams(table, prompts, decoding, eos_id=EOS):
    """`search` with the table for a model, whose cache is the last token but one."""
    buffer = np.full((len(prompts), 16), PAD, np.int32)
    for row, prompt in zip(buffer, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = np.array([len(prompt) for prompt in prompts])
    before_last = np.array([prompt[-2] if len(prompt) > 1 else PAD for prompt in prompts])
    last = np.array([prompt[-1] for prompt in prompts])

    def advance(tokens, positions, cache):
        return jnp.asarray(table)[cache, tokens], tokens

    @jax.jit
    def run():
        return search(
            advance,
            jnp.asarray(table[before_last, last]),
            jnp.asarray(last),
            jnp.asarray(buffer),
            jnp.asarray(lengths),
            jnp.ones(len(prompts), bool),
            num_beams=decoding.num_beams,
            ranking=make_ranking(decoding),
            processors=make_processors(decoding, vocab_size=VOCABULARY, eos_id=eos_id),
        )

    out = np.asarray(run())
    return [
        [tuple(beam[length : length + decoding.max_new_tokens]) for beam in row]
        for row, length in zip(out, lengths, strict=True)
    ]


def padded(text):
    return text + (PAD,) * (NEW - len(text))


def score(table, prompt, text, length_penalty):
    tokens = [PAD, *prompt, *text]
    pairs = range(len(tokens) - len(text), len(tokens))
    total = sum(float(table[tokens[i - 2], tokens[i - 1], tokens[i]]) for i in pairs)
    return total / len(text) ** length_penalty


def plain_search(table, prompt, decoding):
    """One prompt's beam search, with lists."""
    running, finished, width = [((), 0.0)], [], decoding.num_beams
    for length in range(1, decoding.max_new_tokens + 1):
        candidates = [
            ((*text, token), score(table, prompt, (*text, token), 0.0))
            for text, _ in running
            for token in range(VOCABULARY)
        ]
        candidates = sorted(candidates, key=lambda pair: -pair[1])[: 2 * width]
        last = length == decoding.max_new_tokens
        for text, total in candidates[:width]:
            if text[-1] == EOS or last:
                finished.append((text, total / length**decoding.length_penalty))
        finished = sorted(finished, key=lambda pair: -pair[1])[:width]
        running = [pair for pair in candidates if pair[0][-1] != EOS][:width]
        if len(finished) == width:
            hopeful = decoding.early_stopping == 'never' and decoding.length_penalty > 0
            hoped_length = decoding.max_new_tokens if hopeful else length
            hoped = running[0][1] / hoped_length**decoding.length_penalty
            if decoding.early_stopping is True or hoped <= finished[-1][1]:
                break
    return [padded(text) for text, _ in finished]


@pytest.mark.parametrize('early_stopping', [False, True, 'never'])
@pytest.mark.parametrize('length_penalty', [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize('num_beams', [2, 3])
def test_beams_are_those_of_a_plain_search(table, num_beams, length_penalty, early_stopping):
    decoding = Decoding(
        NEW, num_beams=num_beams, length_penalty=length_penalty, early_stopping=early_stopping
    )
    expected = [plain_search(table, prompt, decoding) for prompt in PROMPTS]
    assert beams(table, PROMPTS, decoding) == expected


@pytest.mark.parametrize('length_penalty', [0.0, 1.0])
def test_wide_beams_find_the_best_of_all_texts(table, length_penalty):
    new, width = 3, 2 * VOCABULARY**2  # every text of one or two tokens has a beam
    decoding = Decoding(new, num_beams=width, length_penalty=length_penalty, early_stopping='never')
    texts = {
        text[: text.index(EOS) + 1] if EOS in text else text
        for text in itertools.product(range(VOCABULARY), repeat=new)
    }
    for prompt, found in zip(PROMPTS, beams(table, PROMPTS, decoding), strict=True):
        ranked = sorted(texts, key=lambda text: -score(table, prompt, text, length_penalty))
        assert found[:5] == [text + (PAD,) * (new - len(text)) for text in ranked[:5]]


def test_an_early_end_is_suppressed_below_min_new_tokens(table):
    for row in beams(table, PROMPTS, Decoding(NEW, num_beams=3, min_new_tokens=4)):
        assert all(EOS not in text[:4] for text in row)


def test_exhausted_beams_are_not_made_up(table):
    """No id may occur twice: to a prompt of five of the seven ids, three cannot be added."""
    decoding = Decoding(3, num_beams=2, no_repeat_ngram_size=1)
    (texts,) = beams(table, [[6, 1, 5, 4, 3]], decoding, eos_id=-1)
    assert texts == [(PAD,) * 3] * 2


@pytest.fixture(scope='module', params=['gpt2', 'llama'])
def tiny(request, make_model):
    return make_model(request.param, num_kv_heads=2)


KEYS = {'key': jax.random.key(0), 'eos_id': 2, 'pad_id': 0}


def test_a_prompts_beams_do_not_depend_on_its_batch(tiny):
    decoding = Decoding(9, num_beams=3, num_return_sequences=2, repetition_penalty=1.2)
    prompts = [[5, 9, 3], [7, 8, 9, 10, 11, 12, 13], [4]]
    together = generate(*tiny, prompts, decoding, **KEYS)
    assert together.shape == (6, 9)
    for row, prompt in enumerate(prompts):
        alone = generate(*tiny, [prompt], decoding, **KEYS)
        np.testing.assert_array_equal(together[2 * row : 2 * row + 2], alone)


def test_cached_beams_have_the_scores_of_full_passes(tiny):
    """The beams returned are in the order of their scores, computed anew without a cache."""
    model, params = tiny
    prompt = [5, 9, 3]
    decoding = Decoding(8, num_beams=4, num_return_sequences=4)
    found = generate(model, params, [prompt], decoding, **{**KEYS, 'eos_id': -1})
    tokens = np.concatenate([np.tile(prompt, (4, 1)), found], axis=1).astype(np.int32)
    log_probs = jax.nn.log_softmax(jax.jit(model.apply)({'params': params}, tokens))
    totals = np.take_along_axis(np.asarray(log_probs)[:, 2:-1], found[..., None], axis=2).sum((1, 2))
    greedy = generate(model, params, [prompt], Decoding(8, temperature=0), **{**KEYS, 'eos_id': -1})
    assert (np.diff(totals) <= 1e-5).all()  # float32 sums of eight
    assert len({tuple(row) for row in found}) == 4
    assert found.shape[1] == greedy.shape[1]


def test_new_rankings_do_not_recompile(tiny):
    generate(*tiny, [[5, 9, 3]], Decoding(9, num_beams=2), **KEYS)
    compiled = _search._cache_size()
    decoding = Decoding(7, num_beams=2, length_penalty=2.0, early_stopping='never')
    generate(*tiny, [[5, 9]], decoding, **KEYS)
    assert _search._cache_size() == compiled


def test_repetition_is_penalized_in_the_text_and_not_in_its_padding():
    scores = np.array([[-1.0, 2.0, 3.0, -4.0]], np.float32)
    out = penalize_repetition(scores, jnp.array([[1, 3, 1, 0, 2]]), jnp.array([3]), np.float32(2))
    np.testing.assert_array_equal(out, [[-1.0, 1.0, 3.0, -8.0]])


@pytest.mark.parametrize('size', [1, 2, 3, 9])
def test_ngrams_are_forbidden_as_a_walk_over_them_says(size):
    rng = np.random.default_rng(size)
    tokens, lengths = rng.integers(0, 3, (20, 8)), rng.integers(1, 9, 20)
    out = np.asarray(forbid_ngrams(jnp.zeros((20, 3)), jnp.asarray(tokens), jnp.asarray(lengths), size))
    for row, length, scores in zip(tokens, lengths, out, strict=True):
        text = list(row[:length])
        seen = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        forbidden = [(*text[len(text) - size + 1 :], token) in seen for token in range(3)]
        if length < size - 1:
            forbidden = [False] * 3
        assert list(np.isneginf(scores)) == forbidden
