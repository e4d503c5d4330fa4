"""Vocabularies of words: what a word is, which are kept, and how phrases are found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data import tokenizer, word_training, words
from data.preparation import prepare
from data.word_tokenizer import WordTokenizer, join_phrases, serialise

TEXT = """The cat sat on the mat. The dog didn't sit; New York is far.

New York, New York! The mat's red, and "the" cat knows it.

北京是中国的首都，我爱北京天安门。 Python语言2024年

The cat, the dog and the mat are in New York.
"""


@pytest.fixture
def config(config, tmp_path):
    (tmp_path / 'corpus.txt').write_text(TEXT, encoding='utf-8')
    config.data.eval_fraction = 0.0
    config.tokenizer.kind = 'words'
    config.tokenizer.min_count = 1
    return config


def trained(config) -> WordTokenizer:
    result = prepare(config).tokenizer
    assert isinstance(result, WordTokenizer)
    return result


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("Don't stop, 3rd_try!", ["don't", 'stop', '3rd', 'try']),
        ('L’été à Zürich', ["l'été", 'à', 'zürich']),
        ('e\u0301te\u0301', ['été']),
        ('我来到北京清华大学', ['我', '来到', '北京', '清华大学']),
        ('Python语言,2024年', ['python', '语言', '2024', '年']),
        ('ひらがな', ['ひらがな']),
        ('１９９８年', ['1998', '年']),
        ('… — 🙂', []),
        ("'quoted' words''", ['quoted', 'words']),
    ],
)
def test_words_of_a_text(text, expected):
    assert words.split(text, lowercase=True) == expected


def test_capitals_stay_if_asked(config):
    config.tokenizer.lowercase = False
    assert {'The', 'the'} <= trained(config).ids.keys()


def test_the_most_frequent_words_come_first_with_their_counts(config):
    made = trained(config)
    expected = Counter(words.split(TEXT, lowercase=True))
    counts = dict(zip(made.words, made.counts.tolist(), strict=True))
    assert {word: counts[word] for word in made.ids} == expected
    assert list(made.counts[3:]) == sorted(expected.values(), reverse=True)
    assert made.words[3] == 'the'
    assert not made.counts[:3].any()


def test_rare_words_and_those_beyond_the_size_are_left_out(config):
    config.tokenizer.min_count = 3
    made = trained(config)
    assert made.counts[3:].min() >= 3
    np.testing.assert_array_equal(made.encode('the zebra cat'), [made.ids['the'], made.ids['cat']])
    config.tokenizer.vocab_size = 5
    config.data.path += '-small'
    assert trained(config).vocab_size == 5


def test_it_is_found_again_with_its_documents(config):
    made = trained(config)
    again = tokenizer.load(Path(config.data.path) / 'tokenizer')
    assert again.fingerprint == made.fingerprint
    ids = again.encode_documents(['The cat'])[0]
    np.testing.assert_array_equal(ids, [1, made.ids['the'], made.ids['cat'], 2])
    assert again.decode(ids) == 'the cat'


def test_any_number_of_processes_counts_alike(config):
    alone = trained(config).fingerprint
    config.data.num_workers = 2
    config.data.path += '-two'
    assert trained(config).fingerprint == alone


def test_phrases_score_as_in_the_paper():
    counts = Counter({'new': 10, 'york': 8, 'the': 100, 'cat': 20, 'rare': 1})
    pairs = Counter({'new york': 8, 'the cat': 18, 'the new': 3, 'rare york': 1})
    scores = {  # (n_ab − δ) / (n_a n_b) · N, written out
        pair: (together - 2) / (counts[pair.split()[0]] * counts[pair.split()[1]]) * 139
        for pair, together in pairs.items()
    }
    found = word_training.find_phrases(counts, pairs, min_count=2, threshold=5.0)
    assert found == [tuple(pair.split()) for pair in ('new york',)]
    assert scores['new york'] > 5.0 > scores['the cat']


def test_phrases_are_words_of_their_own(config):
    config.tokenizer.min_count = 2
    config.tokenizer.phrase_threshold = 3.0
    made = trained(config)
    assert 'new_york' in made.ids
    assert made.split('In New York') == ['in', 'new_york']
    assert join_phrases(['a', 'b', 'c'], {('a', 'b'), ('b', 'c')}) == ['a_b', 'c']


@pytest.mark.parametrize('text', ['word', 'word word word word', '… 🙂 —'])
def test_less_than_two_words_are_refused(config, tmp_path, text):
    (tmp_path / 'corpus.txt').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match='at least 2 are needed'):
        prepare(config)


@pytest.mark.parametrize(
    'content', [b'', b'[]', b'{"format": 9}', serialise([('a', 1)], lowercase=True, phrases=[])[:-9]]
)
def test_a_damaged_file_is_refused(content):
    with pytest.raises(UserError, match='no vocabulary of words'):
        WordTokenizer(content)
