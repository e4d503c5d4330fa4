from data import python_docs


def test_prose_is_told_from_tables_and_doctests():
    assert python_docs.is_prose('Returns the number of elements, counting those that are hidden, if any.')
    assert not python_docs.is_prose('Returns the size.'), 'too short to say something'
    assert not python_docs.is_prose(
        '>>> f(1, 2)\n3\n>>> g(f(0), [1, 2, 3])\n[0, 1, 2, 3]\n>>> _ = h({}) or {1: 2}\n'
    )


def test_the_corpus_is_english_of_useful_size_without_repetitions():
    texts = [text for _, text in python_docs.documents()]
    assert 2_000_000 < sum(len(text.encode()) for text in texts) < 9_000_000
    assert len(set(texts)) == len(texts)
    assert sum(' the ' in text for text in texts) > len(texts) / 2
