"""Skip-gram's and CBOW's losses against loops over places, neighbours and noise words."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import word2vec
from configs.errors import UserError
from data.word_tokenizer import WordTokenizer, serialise
from model.word_embeddings import WordEmbeddings, resolve
from objectives import cbow, skip_gram, word_windows

COUNTS = [(f'w{number}', 400 // (number + 1)) for number in range(40)]
SEEDS = np.array([3, 4], np.uint64)


@pytest.fixture
def config():
    config = word2vec.get_config('smoke')
    config.model.embed_dim = 8
    config.sequence_length = 100
    config.words.shared_negatives = 5
    return config


@pytest.fixture
def tokenizer():
    return WordTokenizer(serialise(COUNTS, lowercase=True, phrases=[]))


@pytest.fixture
def rows(tokenizer):
    rng = np.random.default_rng(0)
    rows = rng.integers(3, tokenizer.vocab_size, (2, 101))
    rows[0, [20, 21, 60, 61]] = [2, 1, 2, 1]
    rows[1, 70:] = 0
    return rows.astype(np.int32)


def parameters(config, tokenizer):
    config = resolve(config, vocab_size=tokenizer.vocab_size)
    rng = np.random.default_rng(1)
    shape = (config.vocab_size, config.embed_dim)
    names = ('center_embedding', 'context_embedding')
    return WordEmbeddings(config), {name: rng.normal(size=shape).astype(np.float32) for name in names}


def minus_log_sigmoid(x):
    return np.log1p(np.exp(-x))


def neighbours(batch, row, at):
    radius, size = batch['windows_BM'][row, at], batch['windows_BM'].shape[1]
    margin = (batch['documents_BP'].shape[1] - size) // 2
    documents = batch['documents_BP'][row, margin : margin + size]
    around = range(max(0, at - radius), min(size, at + radius + 1))
    return [other for other in around if other != at and documents[other] == documents[at] > 0]


@pytest.mark.parametrize('objective', [skip_gram, cbow])
@pytest.mark.parametrize('window', [2, 5, 20])
def test_the_loss_is_that_of_loops(config, tokenizer, rows, objective, window):
    config.words.window = window
    model, params = parameters(config, tokenizer)
    batch = objective.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    total, weight, _ = objective.loss(model, params, batch, config=config)

    center, context = (params[name].astype(np.float64) for name in ('center_embedding', 'context_embedding'))
    negatives, expected, count = config.words.negatives, 0.0, 0
    for row in range(2):
        for at, word in enumerate(batch['words_BM'][row]):
            noise = context[batch['noise_BNK'][row, at // max(32, 2 * window)]]
            others = neighbours(batch, row, at)
            if not others:
                continue
            other_words = batch['words_BM'][row, others]
            if objective is skip_gram:
                expected += minus_log_sigmoid(context[other_words] @ center[word]).sum()
                expected += len(others) * negatives * minus_log_sigmoid(-noise @ center[word]).mean()
                count += len(others)
            else:
                mean = center[other_words].mean(axis=0)
                expected += minus_log_sigmoid(context[word] @ mean)
                expected += negatives * minus_log_sigmoid(-noise @ mean).mean()
                count += 1
    # Thousands of float32 terms, each rounded to 6e-8 of itself.
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weight == count


def test_shared_noise_has_the_gradient_of_noise_of_ones_own_on_average(config, tokenizer, rows):
    """Σ over draws of shared noise comes to the exact expectation over the noise distribution."""
    config.words.shared_negatives = 4000
    model, params = parameters(config, tokenizer)
    batch = skip_gram.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    found = jax.grad(lambda params: skip_gram.loss(model, params, batch, config=config)[0])(params)

    counts = np.array([count for _, count in COUNTS], np.float64) ** 0.75
    everything = batch | {'noise_BNK': np.arange(3, 43, dtype=np.int32)[None, None]}
    weights = counts / counts.sum() * len(counts)

    def exact(params):
        positive = skip_gram.loss(model, params, batch, config=_without_noise(config))[0]
        vectors = model.apply({'params': params}, batch['words_BM'])
        pairs = word_windows.pair_mask(batch, config.words.window).sum(-1).reshape(2, -1)
        noise = model.apply({'params': params}, everything['noise_BNK'], method='contexts')[0, 0]
        losses = jax.nn.softplus(vectors @ noise.T) @ (weights / len(counts))
        return positive + config.words.negatives * (losses * pairs).sum()

    expected = jax.grad(exact)(params)
    for name in params:
        error = (
            np.abs(np.asarray(found[name] - expected[name])).max() / np.abs(np.asarray(expected[name])).max()
        )
        assert error < 0.1  # 6 × 4000 draws


def _without_noise(config):
    config = config.copy_and_resolve_references()
    config.words.negatives = 0
    return config


def test_frequent_words_are_thinned_as_in_word2vec(config, tokenizer):
    config.words.subsample = 0.01
    config.sequence_length = 5000
    share = word_windows.kept_share(tokenizer, 0.01)
    part = tokenizer.counts / tokenizer.counts.sum()
    expected = np.minimum(1, np.sqrt(0.01 / part[3:]) + 0.01 / part[3:])
    np.testing.assert_allclose(share[3:], expected, rtol=1e-6)
    rows = np.full((2, 5001), 3, np.int32)
    rows[:, ::2] = 42  # so rare that it always stays
    batch = word_windows.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    kept = (batch['words_BM'] == 3).sum() / 5000
    assert kept == pytest.approx(expected[0], abs=0.03)  # 5000 draws: a standard error below 0.007


def test_noise_is_drawn_by_counts_to_the_power(config, tokenizer, rows):
    config.words.shared_negatives = 20_000
    batch = word_windows.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    drawn = np.bincount(batch['noise_BNK'].ravel(), minlength=43) / batch['noise_BNK'].size
    weights = tokenizer.counts**0.75
    np.testing.assert_allclose(drawn, weights / weights.sum(), atol=0.005)  # standard error below 0.0013
    assert not drawn[:3].any()


def test_windows_differ_and_seeds_decide(config, tokenizer, rows):
    make = lambda rows, seeds: word_windows.make_batch(  # noqa: E731
        rows, tokenizer=tokenizer, config=config, seeds_R=seeds
    )
    both, alone = make(rows, SEEDS), make(rows[1:], SEEDS[1:])
    for name in both:
        np.testing.assert_array_equal(both[name][1:], alone[name])
    assert set(np.unique(both['windows_BM'])) == {1, 2, 3, 4, 5}
    assert (both['windows_BM'] != make(rows, SEEDS + 9)['windows_BM']).any()


def test_neighbours_do_not_cross_documents(config, tokenizer, rows):
    config.words.subsample = 0.0
    batch = word_windows.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    mask = np.asarray(word_windows.pair_mask(batch, 5)).reshape(2, -1, 42)[0, :100]
    words = [token for token in rows[0, :100] if token > 2]
    first = list(rows[0]).index(2)
    assert batch['words_BM'][0, : len(words)].tolist() == words
    assert first == 20
    assert not mask[19, 24:].any()  # the last place of the first document sees nothing after it
    for at in range(len(words)):
        expected = len(neighbours(batch, 0, at))
        assert mask[at].sum() == expected


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'window': 0}, 'words.window=0 must be at least 1'),
        ({'window': 200}, 'does not fit rows'),
        ({'negatives': 0}, 'words.negatives=0'),
        ({'subsample': -1.0}, 'must not be negative'),
    ],
)
def test_impossible_settings_are_refused(config, tokenizer, change, complaint):
    config.words.update(change)
    with pytest.raises(UserError, match=complaint):
        skip_gram.check(config, resolve(config, vocab_size=43), tokenizer)


def test_a_text_shorter_than_a_window_is_refused(config):
    tokenizer = WordTokenizer(serialise([('a', 2), ('b', 2)], lowercase=True, phrases=[]))
    with pytest.raises(UserError, match='4 words, which is less than one window'):
        cbow.check(config, resolve(config, vocab_size=5), tokenizer)


def test_a_tokenizer_without_counts_is_refused(config):
    with pytest.raises(UserError, match=r"tokenizer.kind='words'"):
        cbow.check(config, resolve(config, vocab_size=5), object())


@pytest.mark.parametrize('objective', [skip_gram, cbow])
def test_a_word_moves_by_the_mean_over_its_pairs(config, tokenizer, rows, objective):
    """Gradients of a batch, divided by its pairs as the step does, against sums over each word's own."""
    config.words.negatives, config.words.least_pairs = 1, 16.0
    model, params = parameters(config, tokenizer)
    batch = objective.make_batch(rows, tokenizer=tokenizer, config=config, seeds_R=SEEDS)
    weight = objective.loss(model, params, batch, config=config)[1]
    sums = jax.grad(lambda params: objective.loss(model, params, batch, config=config)[0])(params)
    factors = objective.row_factors(batch, config=config, rows=model.config.vocab_size)
    rated = (sums['center_embedding'] * factors['center_embedding'][:, None])[3:43] / weight
    pairs = np.zeros(40)
    for row in range(2):
        for at, word in enumerate(batch['words_BM'][row]):
            met = len(neighbours(batch, row, at))
            pairs[word - 3] += met if objective is skip_gram else met > 0
    assert pairs.min() < 16
    assert objective is cbow or pairs.max() > 16
    expected = sums['center_embedding'][3:43] / np.maximum(pairs, 16)[:, None]
    np.testing.assert_allclose(rated, expected, rtol=1e-4, atol=1e-6)  # float32


def test_noise_is_what_a_search_of_the_distribution_finds(tokenizer):
    ends, _ = word_windows.noise_ends(tokenizer, 0.75)
    drawn = word_windows.draw_noise(np.random.default_rng(5), (10_000,), tokenizer, 0.75)
    expected = np.searchsorted(ends, np.random.default_rng(5).random(10_000), side='right')
    np.testing.assert_array_equal(drawn, expected)
