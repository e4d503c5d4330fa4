"""Vectors out of models, and into them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from configs import base
from configs.errors import UserError
from data import word_vectors
from data.sentencepiece_tokenizer import train
from data.word_tokenizer import WordTokenizer, serialise
from data.word_vectors import WordVectors
from training import imported_vectors, run, vectors

TEXT = 'the king and the queen saw the cat on the mat. The king sat. ' * 30


@pytest.fixture(scope='module')
def tokenizer():
    return train([TEXT], kind='bpe', vocab_size=320)


@pytest.fixture
def table():
    return {
        'token_embedding': {'embedding': jax.random.normal(jax.random.key(0), (384, 4)) * 0.02},
        'other': 1,
    }


def test_tokens_are_named_by_their_text(tokenizer, table):
    known = vectors.of_model(table, tokenizer)
    assert {'▁king', '▁the'} <= known.ids.keys()
    expected = table['token_embedding']['embedding'][int(tokenizer.encode(' king')[0])]
    np.testing.assert_array_equal(known.vectors[known.id_of('king')], expected)
    assert not any('<' in word and '>' in word for word in known.words)


def test_known_words_begin_as_the_vectors_of_a_file(tmp_path, tokenizer, table):
    path = tmp_path / 'v'
    given = WordVectors(
        ['king', 'the', 'zebra'], np.array([[1, 2, 3, 4], [4, 3, 2, 1], [9, 9, 9, 9]], np.float32)
    )
    word_vectors.write(path, given, 'word2vec')
    before = np.asarray(table['token_embedding']['embedding'])
    after = np.asarray(vectors.plant(table, str(path), tokenizer)['token_embedding']['embedding'])
    king, the = (int(tokenizer.encode(text)[0]) for text in (' king', ' the'))
    assert np.corrcoef(after[king], [1, 2, 3, 4])[0, 1] > 0.999999
    assert np.corrcoef(after[the], [4, 3, 2, 1])[0, 1] > 0.999999
    changed = (before != after).any(axis=1)
    names = vectors.token_names(tokenizer)
    assert set(np.flatnonzero(changed)) == {
        names[text] for text in names if text.strip('▁') in ('king', 'the', 'The')
    }
    size = np.sqrt(np.square(before[changed]).mean())
    assert np.sqrt(np.square(after[changed]).mean()) == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize(
    ('words', 'width', 'complaint'), [(['king'], 5, 'model.embed_dim=4'), (['zebra'], 4, 'no token')]
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, tokenizer, table, words, width, complaint):
    word_vectors.write(tmp_path / 'v', WordVectors(words, np.ones((1, width), np.float32)), 'glove')
    with pytest.raises(UserError, match=complaint):
        vectors.plant(table, str(tmp_path / 'v'), tokenizer)


def test_vectors_from_elsewhere_become_a_run(tmp_path):
    rng = np.random.default_rng(0)
    given = WordVectors(['king', '北京', "don't"], rng.normal(size=(3, 6)).astype(np.float32))
    run.save_as_run(imported_vectors.as_run(given), tmp_path / 'run')
    opened = run.open_run(str(tmp_path / 'run'))
    again = vectors.of_model(opened.params, opened.tokenizer)
    assert again.words == given.words
    np.testing.assert_array_equal(again.vectors, given.vectors)
    with pytest.raises(UserError, match='neither read nor write text'):
        opened.generate([[3]])


def test_gloves_vectors_are_the_sum_of_both_tables():
    tokenizer = WordTokenizer(serialise([('a', 2), ('b', 1)], lowercase=True, phrases=[]))
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(size=(128, 3)).astype(np.float32)
        for name in ('center_embedding', 'context_embedding')
    }
    alone = vectors.of_model(params, tokenizer).vectors
    np.testing.assert_array_equal(alone, params['center_embedding'][3:5])
    both = vectors.of_model(params | {'center_bias': np.zeros(128)}, tokenizer).vectors
    np.testing.assert_array_equal(both, alone + params['context_embedding'][3:5])


def test_a_transformer_begins_with_vectors(tmp_path, tokenizer):
    from parallel.mesh import make_mesh
    from training import console
    from training import state as states
    from training.beginning import Beginning
    from training.optimizer import make_optimizer

    config = base.get_config()
    base.shrink(config)
    word_vectors.write(tmp_path / 'v', WordVectors(['king'], np.ones((1, 64), np.float32)), 'glove')
    config.model.embedding_vectors = str(tmp_path / 'v')
    mesh = make_mesh({'data': 1, 'fsdp': -1, 'tensor': 1, 'context': 1})
    model, optimizer = run.build_model(config, tokenizer, mesh), make_optimizer(config)
    abstract = states.abstract_state(model, optimizer, mesh, seed=0, ema=False)
    log = console.Log(None, quiet=True)
    state, began = Beginning().first_state(model, optimizer, abstract, config, tokenizer, log)
    assert began is None
    row = np.asarray(state.params['token_embedding']['embedding'])[int(tokenizer.encode(' king')[0])]
    assert np.ptp(row) == 0 != row[0]
