"""Generation against full forward passes and distributions worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import UserError
from model.attention import init_cache
from model.decoding import Decoding
from model.generation import _extend, generate
from model.logits import make_processors, mask_vocabulary, sample

PROMPTS = [[5, 9, 3], [7, 8, 9, 10, 11, 12, 13], [4]]
LENGTH = 9
GREEDY = Decoding(LENGTH, temperature=0)
KEYS = {'key': jax.random.key(0), 'eos_id': 2, 'pad_id': 0}


@pytest.fixture(scope='module', params=['gpt2', 'llama'])
def tiny(request, make_model):
    return make_model(request.param, num_kv_heads=2)


def test_cached_logits_equal_the_full_forward_pass(tiny):
    model, params = tiny
    tokens = np.random.default_rng(0).integers(0, 40, (2, 20)).astype(np.int32)
    full = jax.jit(model.apply)({'params': params}, tokens)
    apply = jax.jit(
        lambda tokens, positions, cache: model.apply({'params': params}, tokens, None, positions, cache=cache)
    )
    cache = init_cache(model.config, batch_size=2, length=24)
    begin = 0
    for count in (7, *[1] * 6, 7):  # a prompt, single tokens, and several at once
        positions = np.broadcast_to(np.arange(begin, begin + count), (2, count))
        logits, cache = apply(tokens[:, begin : begin + count], positions, cache)
        np.testing.assert_allclose(logits, full[:, begin : begin + count], atol=1e-5)
        begin += count


def test_greedy_text_equals_step_by_step_argmax(tiny):
    model, params = tiny
    out = generate(model, params, PROMPTS, GREEDY, **KEYS)
    apply = jax.jit(lambda tokens: model.apply({'params': params}, tokens))
    for prompt, row in zip(PROMPTS, out, strict=True):
        text = list(prompt)
        for _ in range(LENGTH):
            padded = np.zeros((1, 24), np.int32)  # what follows cannot be seen
            padded[0, : len(text)] = text
            text.append(int(apply(padded)[0, len(text) - 1].argmax()))
            if text[-1] == KEYS['eos_id']:
                break
        new = text[len(prompt) :]
        np.testing.assert_array_equal(row, new + [0] * (len(row) - len(new)))


def test_layers_read_from_their_stack_give_the_same_text(tiny, monkeypatch):
    expected = generate(*tiny, PROMPTS, GREEDY, **KEYS)
    monkeypatch.setattr('model.generation._holds', lambda: False)  # as on an accelerator
    np.testing.assert_array_equal(generate(*tiny, PROMPTS, GREEDY, **KEYS), expected)


def test_bfloat16_texts_are_those_of_float32_on_the_same_rounded_kernels(make_model):
    model, params = make_model('llama', compute_dtype='bfloat16', vocab_size=1024)
    exact, _ = make_model('llama', vocab_size=1024)
    rounded = jax.tree.map(lambda leaf: leaf.astype('bfloat16').astype('float32'), params)
    found, expected = (generate(m, rounded, PROMPTS, GREEDY, **KEYS) for m in (model, exact))
    # Activations are rounded too, to 8 bits: near ties may be decided otherwise, and texts then part.
    assert (found[:, 0] == expected[:, 0]).all()
    assert (found == expected).mean() > 0.6


def test_a_row_depends_on_its_seed_and_not_on_its_batch(tiny):
    model, params = tiny
    together = generate(model, params, PROMPTS, Decoding(LENGTH, top_p=0.9), **KEYS)
    alone = generate(model, params, PROMPTS[:1], Decoding(LENGTH, top_p=0.9), **KEYS)
    again = generate(model, params, PROMPTS, Decoding(LENGTH, top_p=0.9), **KEYS)
    other = generate(
        model, params, PROMPTS, Decoding(LENGTH, top_p=0.9), **{**KEYS, 'key': jax.random.key(1)}
    )
    np.testing.assert_array_equal(together[0], alone[0])
    np.testing.assert_array_equal(together, again)
    assert (together != other).any()


def test_rows_end_at_eos(tiny):
    model, params = tiny
    free = generate(model, params, PROMPTS, GREEDY, **{**KEYS, 'eos_id': -1})
    eos_id = int(free[0, 3])
    ended = generate(model, params, PROMPTS, GREEDY, **{**KEYS, 'eos_id': eos_id})
    for row, free_row in zip(ended, free, strict=True):
        ends = np.flatnonzero(free_row == eos_id)
        kept = ends[0] + 1 if len(ends) else len(row)
        np.testing.assert_array_equal(row[:kept], free_row[:kept])
        assert (row[kept:] == 0).all()


def test_watched_rows_end_where_told_and_leave_the_others_alone(tiny):
    decoding = Decoding(LENGTH, top_k=20)
    free = generate(*tiny, PROMPTS, decoding, **KEYS)
    seen = []

    def watch(new):
        seen.append([len(tokens) for tokens in new])
        return [None, 3 if len(new[1]) >= 3 else None, None]

    watched = generate(*tiny, PROMPTS, decoding, watch=watch, watch_every=4, **KEYS)
    np.testing.assert_array_equal(watched[[0, 2]], free[[0, 2]])
    np.testing.assert_array_equal(watched[1], [*free[1, :3], *[0] * (LENGTH - 3)])
    assert max(map(max, seen)) <= LENGTH
    assert seen[0][0] <= 4


def test_ids_outside_the_vocabulary_are_never_produced(tiny):
    model, params = tiny
    out = generate(model, params, PROMPTS, Decoding(LENGTH, temperature=5.0), vocab_size=5, **KEYS)
    assert out.max() < 5


def test_new_settings_and_lengths_do_not_recompile(tiny):
    model, params = tiny
    generate(model, params, PROMPTS, Decoding(LENGTH, temperature=0.5, top_k=3), **KEYS)
    compiled = _extend._cache_size()
    generate(model, params, [*PROMPTS, [3, 4]], Decoding(4, temperature=0.9, top_k=7), **KEYS)
    assert _extend._cache_size() == compiled


def allowed(probabilities, top_k, top_p):
    """Returns the distribution that is left, by walking down from the most probable token."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    order = order[:top_k] if top_k else order
    total = sum(probabilities[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if mass >= top_p:
            break
        kept.append(i)
        mass += probabilities[i] / total
    out = np.zeros(len(probabilities))
    out[kept] = [probabilities[i] for i in kept]
    return out / out.sum()


@pytest.mark.parametrize(
    ('temperature', 'top_k', 'top_p'),
    [
        (1.0, 0, 1.0),
        (0.5, 0, 1.0),
        (1.0, 3, 1.0),
        (1.0, 0, 0.7),
        (2.0, 5, 0.8),
        (1.0, 0, 1e-6),
        (1.0, 1, 1.0),
    ],
)
def test_samples_follow_the_filtered_distribution(temperature, top_k, top_p):
    logits = np.random.default_rng(3).normal(0, 1.5, 12).astype(np.float32)
    size = 10  # two ids of padding
    scaled = np.exp(logits[:size].astype(np.float64) / temperature)
    expected = np.append(allowed(scaled / scaled.sum(), top_k, top_p), [0, 0])

    draws = 20_000
    decoding = Decoding(temperature=temperature, top_k=top_k, top_p=top_p)
    processors = make_processors(decoding, vocab_size=size, eos_id=2)
    keys = jax.random.split(jax.random.key(0), draws)
    ids = jax.jit(sample)(mask_vocabulary(jnp.tile(logits, (draws, 1)), size), keys, processors)
    observed = np.bincount(ids, minlength=12) / draws
    assert not observed[expected == 0].any()
    # Five standard deviations of a binomial share.
    assert (np.abs(observed - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'prompts': [[5] * 20]}, 'A prompt of 20 tokens and max_new_tokens=9 exceed model.max_length=24'),
        ({'max_new_tokens': 30}, 'max_new_tokens=30 exceed'),
        ({'max_new_tokens': 0}, 'max_new_tokens=0'),
        ({'prompts': [[]]}, 'prompt is empty'),
        ({'prompts': []}, 'prompt is empty'),
        ({'temperature': -1.0}, 'temperature=-1.0'),
        ({'top_k': -1}, 'top_k=-1'),
        ({'top_p': 0.0}, 'top_p=0.0'),
        ({'min_new_tokens': 10}, 'min_new_tokens=10 exceeds max_new_tokens=9'),
        ({'min_new_tokens': -1}, 'min_new_tokens=-1'),
        ({'repetition_penalty': 0.0}, 'repetition_penalty=0.0'),
        ({'no_repeat_ngram_size': -2}, 'no_repeat_ngram_size=-2'),
        ({'num_beams': 0}, 'num_beams=0'),
        ({'num_beams': 2, 'num_return_sequences': 3}, 'num_return_sequences=3 exceeds num_beams=2'),
        ({'early_stopping': 'always'}, "early_stopping='always'"),
    ],
)
def test_impossible_requests_are_refused(tiny, keys, message):
    def request(prompts=PROMPTS, **keys):
        generate(*tiny, prompts, Decoding(**{'max_new_tokens': LENGTH, **keys}), **KEYS)

    with pytest.raises(UserError, match=message):
        request(**keys)
