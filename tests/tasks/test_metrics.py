"""Metrics of tasks equal their definitions and the libraries' own, and intervals hold the truth."""

import numpy as np
import pytest

from tasks.metrics import bootstrap, classification, edits, rouge, squad, translation


@pytest.mark.parametrize(
    ('answer', 'references', 'exact', 'f1'),
    [  # by the rules of SQuAD's evaluation script: lower case, no punctuation, no articles, best reference
        ('The Normans', ['normans'], 1, 1),
        ('an  apple.', ['apple'], 1, 1),
        ('in the 10th century', ['10th century'], 0, 0.8),
        ('Denver Broncos', ['Denver', 'The Denver Broncos!'], 1, 1),
        ('', [], 1, 1),
        ('something', [], 0, 0),
        ('', ['something'], 0, 0),
        ('the', ['a'], 1, 1),  # both are nothing once articles are gone
        ('cat cat dog', ['cat dog dog'], 0, 2 / 3),
        ('北京市', ['北京'], 0, 0.8),
        ('“北京”。', ['北京'], 1, 1),
    ],
)
def test_answers_are_compared_by_squads_rules(answer, references, exact, f1):
    assert squad.exact_match(answer, references) == exact
    assert squad.f1(answer, references) == pytest.approx(f1)


def test_rouge_equals_the_library_and_counts_characters_in_chinese():
    from rouge_score.rouge_scorer import RougeScorer

    answers, references = ['the cat was found under the bed'], ['the cat was under the bed']
    theirs = RougeScorer(['rouge1', 'rouge2', 'rougeL'], use_stemmer=True).score(references[0], answers[0])
    ours = rouge.scores(answers, references, 'en')
    assert {name: score.value for name, score in ours.items()} == {
        name: pytest.approx(100 * score.fmeasure) for name, score in theirs.items()
    }
    chinese = rouge.scores(['我爱北京'], ['我爱上海'], 'zh')  # 2 of 4 characters, 1 of 3 pairs
    assert chinese['rouge1'].value == pytest.approx(50)
    assert chinese['rouge2'].value == pytest.approx(100 / 3)


def test_bleu_and_chrf_equal_sacrebleus():
    import sacrebleu

    answers = ['The cat sat on the mat .', 'There is a dog in the garden .', 'It rains.']
    references = ['The cat sat on the mat .', 'A dog is in the garden .', 'It is raining.']
    assert translation.bleu(answers, references, 'en').value == pytest.approx(
        sacrebleu.corpus_bleu(answers, [references]).score
    )
    assert translation.chrf(answers, references).value == pytest.approx(
        sacrebleu.corpus_chrf(answers, [references]).score
    )
    chinese = ['今天天气很好', '我们去公园'], ['今天天气不好', '我们去公园吧']
    assert translation.bleu(*chinese, 'zh').value == pytest.approx(
        sacrebleu.corpus_bleu(chinese[0], [chinese[1]], tokenize='zh').score
    )


def test_edits_are_counted_against_those_of_the_reference():
    scores = edits.scores(['I has a apple'], ['I have a apple'], ['I have an apple'])
    assert scores['edit_precision'].value == 100  # the one edit made is right
    assert scores['edit_recall'].value == 50  # of two
    assert scores['edit_f0.5'].value == pytest.approx(100 * 1.25 * 0.5 / (0.25 + 0.5))
    untouched = edits.scores(['right'], ['right'], ['right'])
    assert {score.value for score in untouched.values()} == {100}


def test_classes_are_scored_by_their_definitions():
    true = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    said = np.eye(3, dtype=bool)[[0, 1, 1, 1]]
    p = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.1, 0.9, 0]])
    scores = classification.scores(true, said, p)
    assert scores['accuracy'].value == 75
    assert scores['macro_f1'].value == pytest.approx(100 * np.mean([2 / 3, 4 / 5]))  # the third never occurs
    # Bins of 1/15: 0.9 twice (both right), 0.8 alone (wrong), 0.7 alone (right).
    assert scores['calibration_error'].value == pytest.approx(100 * (0.2 + 0.8 + 0.3) / 4)
    assert classification.confusion(true, said).tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]


def test_an_interval_is_that_of_the_normal_distribution_for_many_examples():
    values = np.random.default_rng(0).normal(10, 2, 2000)
    score = bootstrap.mean(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert score.value == pytest.approx(values.mean())
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=0.02)
    assert bootstrap.mean(values) == score
