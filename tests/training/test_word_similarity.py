"""Neighbours, analogies and judgements against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import UserError
from data.word_vectors import WordVectors
from training import word_similarity as similarity

WORDS = ['man', 'woman', 'king', 'queen', 'tea', 'King']


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    royal, female, drink = rng.normal(size=(3, 6))
    person = rng.normal(size=6)
    rows = [person, person + female, person + royal, person + royal + female, drink, person + 1.1 * royal]
    return WordVectors(WORDS, np.array(rows, np.float32))


def cosine(x, y):
    return x @ y / np.sqrt((x @ x) * (y @ y))


def test_neighbours_are_ranked_by_cosine(vectors):
    expected = sorted(
        ((word, cosine(vectors.vectors[0], vectors.vectors[at])) for at, word in enumerate(WORDS) if at),
        key=lambda item: -item[1],
    )
    found = similarity.nearest(vectors, 'man', 10)
    assert [word for word, _ in found] == [word for word, _ in expected]
    # float32 cosines of six numbers
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-6)


@pytest.mark.parametrize('method', similarity.METHODS)
def test_scores_of_analogies_are_those_of_the_papers(vectors, method):
    a, b, c = (vectors.vectors[at] for at in (0, 1, 2))
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    for word, score in similarity.analogy(vectors, ['man', 'woman', 'king'], 3, method):
        d = vectors.vectors[WORDS.index(word)]
        if method == 'add':
            expected = cosine(d, unit(b) - unit(a) + unit(c))
        else:
            moved = [(1 + cosine(d, x)) / 2 for x in (b, c, a)]
            expected = moved[0] * moved[1] / (moved[2] + 1e-6)
        assert score == pytest.approx(expected, abs=1e-5)  # float32


def test_the_words_of_a_question_are_no_answer(vectors):
    answers = [word for word, _ in similarity.analogy(vectors, ['man', 'woman', 'king'], 10)]
    assert answers[0] == 'queen'
    assert not {'man', 'woman', 'king'} & set(answers)


def test_questions_are_answered_without_regard_to_capitals(tmp_path, vectors):
    path = tmp_path / 'questions'
    path.write_text(': royalty\nMan Woman King Queen\nman woman king tea\nman woman king zebra\n: none\n')
    first, second = similarity.evaluate_analogies(vectors, path)
    assert (first.name, first.correct, first.left_out) == ('royalty', [True, False], 1)
    assert first.answers == ['queen', 'queen']  # not King, another form of a word of the question
    assert (second.questions, second.left_out) == ([], 0)


def test_agreement_is_spearmans_and_pearsons(tmp_path, vectors):
    from scipy import stats

    path = tmp_path / 'pairs'
    pairs = [
        ('man', 'woman', 8),
        ('KING', 'queen', 9),
        ('man', 'tea', 1),
        ('king', 'tea', 1),
        ('zebra', 'tea', 3),
    ]
    path.write_text('# words\n' + ''.join(f'{a}\t{b}\t{n}\n' for a, b, n in pairs))
    found = similarity.evaluate_similarity(vectors, path)
    known = [
        (vectors.vectors[WORDS.index(a.lower())], vectors.vectors[WORDS.index(b)], n) for a, b, n in pairs[:4]
    ]
    cosines, judged = [cosine(a, b) for a, b, _ in known], [n for *_, n in known]
    assert found.spearman == pytest.approx(stats.spearmanr(cosines, judged).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(cosines, judged).statistic, abs=1e-6)
    assert (found.pairs, found.left_out) == (4, 1)


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        ('man woman king queen\n', 'line 1: expected .: section'),
        (': a\nman woman king\n', 'line 2'),
        (': a\nx y z v\n', 'no question has known words'),
    ],
)
def test_a_file_of_no_questions_is_refused(tmp_path, vectors, content, complaint):
    (tmp_path / 'f').write_text(content)
    with pytest.raises(UserError, match=complaint):
        similarity.evaluate_analogies(vectors, tmp_path / 'f')


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [('man\twoman\n', 'line 1'), ('man\twoman\tmuch\n', 'line 1'), ('a\tb\t1\n', 'too few')],
)
def test_a_file_of_no_pairs_is_refused(tmp_path, vectors, content, complaint):
    (tmp_path / 'f').write_text(content)
    with pytest.raises(UserError, match=complaint):
        similarity.evaluate_similarity(vectors, tmp_path / 'f')
