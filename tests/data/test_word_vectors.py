"""Files of word vectors: written and read back exactly, damaged ones refused."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import UserError
from data import word_vectors
from data.word_vectors import FORMATS, WordVectors

WORDS = ['the', 'naïve', '北京', "don't", 'new_york', '3']


@pytest.fixture
def vectors():
    return WordVectors(WORDS, np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32))


@pytest.mark.parametrize('file_format', FORMATS)
def test_what_is_written_is_read_exactly(tmp_path, vectors, file_format):
    word_vectors.write(tmp_path / 'v', vectors, file_format)
    again = word_vectors.read(tmp_path / 'v')
    assert again.words == vectors.words
    np.testing.assert_array_equal(again.vectors, vectors.vectors)


def test_binary_entries_may_lack_the_newline(tmp_path, vectors):
    entries = b''.join(
        word.encode() + b' ' + row.tobytes() for word, row in zip(WORDS, vectors.vectors, strict=True)
    )
    (tmp_path / 'v').write_bytes(b'6 5\n' + entries)
    np.testing.assert_array_equal(word_vectors.read(tmp_path / 'v').vectors, vectors.vectors)


def test_of_a_word_that_comes_twice_the_first_counts(tmp_path):
    (tmp_path / 'v').write_text('a 1 2\nb 3 4\na 5 6\n')
    assert word_vectors.read(tmp_path / 'v').vectors.tolist() == [[1, 2], [3, 4]]


def test_words_may_hold_spaces_in_glove_files(tmp_path):
    (tmp_path / 'v').write_text('of 1 2\n. . . 3 4\n')
    assert word_vectors.read(tmp_path / 'v').words == ('of', '. . .')


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        (b'', 'neither a count and a width nor a word'),
        (b'\x89PNG\r\n\x1a\n', 'neither a count and a width nor a word'),
        (b'a 1 2\nb 3\n', 'line 2'),
        (b'a 1 2\nb 3 x\n', 'line 2'),
        (b'3 2\na 1 2\nb 3 4\n', 'says it holds 3 vectors, and has 2'),
        (b'2 2\na 1 2\nb 3 4 5\n', 'line 3'),
        (b'0 5\n', 'it is empty'),
        (b'2 2\na ' + bytes(8) + b'b ' + bytes(5), 'ends within that of number 2'),
        (b'a 1 2\nb nan 4\n', 'not finite'),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, complaint):
    (tmp_path / 'v').write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        word_vectors.read(tmp_path / 'v')


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        word_vectors.read(tmp_path / 'v')


def test_a_failed_export_leaves_what_was_there(tmp_path, vectors):
    (tmp_path / 'v').write_text('before')
    with pytest.raises(UserError, match='white space'):
        word_vectors.write(tmp_path / 'v', WordVectors(['a b'], vectors.vectors[:1]), 'glove')
    assert (tmp_path / 'v').read_text() == 'before'


def test_an_unknown_word_is_named_with_its_nearest(vectors):
    with pytest.raises(UserError, match=r"'new_yrok' is none of the 6 words. Did you mean 'new_york'\?"):
        vectors.id_of('new_yrok')
