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


def test_pairs_are_first_lines_and_what_they_introduce():
    pairs = list(python_docs.pairs())
    bodies = [body for _, body, _ in pairs]
    assert 1000 < len(pairs) == len(set(bodies))
    assert all('\n' not in summary and 10 <= len(summary) <= 200 for _, _, summary in pairs)
    assert min(map(len, bodies)) >= 100
    assert pairs == list(python_docs.pairs())
    found = {summary: body for identifier, body, summary in pairs if identifier.startswith('textwrap.py:')}
    assert 'Fill a single paragraph of text, returning a new string.' in found
    body = found['Fill a single paragraph of text, returning a new string.']
    assert body.startswith("Reformat the single paragraph in 'text'")
    assert not any(identifier.endswith('.py:1') for identifier, _, _ in pairs), 'modules are left out'
