from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from data import word_hashes
from data.cleaning import block_list, languages, quality, repetition
from data.cleaning.steps import Dropped

PROSE = (
    'The committee has decided that all of the members should be asked to speak about the changes which have '
    'been made. It was found that many people with good reasons did not agree, and the chair said so. '
    'Nobody who was there will forget the long silence that came before the first answer, or the answer.'
)
CHINESE = (
    '委员会已经决定，所有的成员都应当谈一谈这些变化。结果发现，很多人有充分的理由不同意，主席也公开承认了这一点。'
    '在场的人都不会忘记第一个回答之前那段漫长的沉默，也不会忘记那个回答本身。后来大家才知道，这件事情和他们最初想的完全不一样。'
)


def reason(result: str | Dropped) -> str:
    return result.reason if isinstance(result, Dropped) else ''


@pytest.mark.parametrize('text', [PROSE, CHINESE])
def test_prose_passes_every_filter(text: str):
    assert quality.gopher_quality(True, text) == text
    assert repetition.gopher_repetition(text) == text
    assert quality.c4_lines(text) == text
    assert quality.bound_symbols(0.3, text) == text


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('the and of ' * 16, 'Gopher: too few words'),
        ('the and ' * 50_001, 'Gopher: too many words'),
        ('的是' * 75_001, 'Gopher: too many words'),
        ('的是在' * 24, 'Gopher: too few words'),
        (' '.join(['to'] * 30 + ['a'] * 40), 'Gopher: mean word length'),
        (PROSE + ' #' * 10, 'Gopher: symbols per word'),
        (PROSE + ' 12345' * 20, 'Gopher: words without letters'),
        (' '.join(['schmetterling'[:9]] * 60), 'Gopher: stop words'),
        ('\n'.join('- the ' + line for line in PROSE.split('. ') * 3), 'Gopher: bullets'),
        ('\n'.join([PROSE] + ['and so on…'] * 2), 'Gopher: ellipses at ends of lines'),
    ],
)
def test_each_rule_of_gopher_drops_what_breaks_it(text: str, why: str):
    assert reason(quality.gopher_quality(True, text)) == why


def test_bounds_are_of_characters_and_of_their_kinds():
    assert reason(quality.bound_length(3, 5, 'ab')) == 'fewer than 3 characters'
    assert reason(quality.bound_length(3, 5, 'abcdef')) == 'more than 5 characters'
    assert quality.bound_length(3, 0, 'abcdef') == 'abcdef'
    assert quality.bound_symbols(0.5, 'ab ++') == 'ab ++'
    assert reason(quality.bound_symbols(0.4, 'ab ++')) == 'more than 40% symbols'


def test_c4_keeps_sentences_and_drops_pages_of_code():
    lines = ['Home', 'Read this with JavaScript turned on, please do it.', 'Too short.', *PROSE.split('\n')]
    assert quality.c4_lines('\n'.join(lines)) == PROSE
    assert quality.c4_lines('首页\n' + CHINESE) == CHINESE
    assert reason(quality.c4_lines(PROSE + ' {}')) == 'C4: curly bracket'
    assert reason(quality.c4_lines(PROSE + ' Lorem Ipsum.')) == 'C4: lorem ipsum'
    assert reason(quality.c4_lines('One sentence of more than five words.')) == 'C4: too few sentences'
    assert quality.c4_lines(PROSE.replace('made.', 'made.[3][citation needed]')) == PROSE


@given(st.text(st.sampled_from('ab c.。!?"\n中文[1]')))
def test_c4_changes_nothing_the_second_time(text: str):
    once = quality.c4_lines(text)
    assert isinstance(once, Dropped) or quality.c4_lines(once) == once


def repeated_share(tokens: list[str], n: int) -> float:
    """The definition, word for word: characters of words in an n-gram that stood before, each once."""
    seen, covered = set(), set()
    for at in range(len(tokens) - n + 1):
        gram = tuple(tokens[at : at + n])
        if gram in seen:
            covered |= set(range(at, at + n))
        seen.add(gram)
    return sum(len(tokens[at]) for at in covered) / sum(map(len, tokens))


def most_frequent_share(tokens: list[str], n: int) -> float:
    counts = Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))
    most = max(counts.values())
    longest = max(sum(map(len, gram)) for gram, count in counts.items() if count == most)
    return most * longest / sum(map(len, tokens)) if most > 1 else 0.0


@pytest.mark.parametrize('kinds', [5, 30, 1000])
def test_shares_of_repeated_ngrams_are_as_defined(kinds: int):
    rng = random.Random(kinds)
    for number in (1, 2, 12, 300):
        tokens = [f'{"w" * rng.randint(1, 6)}{rng.randrange(kinds)}' for _ in range(number)]
        found = word_hashes.find_words(' '.join(tokens))
        lengths = found.ends - found.starts
        for n in (2, 3, 5, 10):
            hashes = word_hashes.ngram_hashes(found.hashes, n)
            if number >= n:
                first = np.unique(hashes, return_index=True)[1]
                expected = repeated_share(tokens, n)
                assert repetition.repeated_share(first, lengths, n) == pytest.approx(expected)
                expected = most_frequent_share(tokens, n)
                assert repetition.most_frequent_share(hashes, lengths, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('\n'.join(['one line of it'] * 4 + [PROSE]), 'Gopher: repeated lines'),
        ('\n\n'.join([PROSE, PROSE, 'and more']), 'Gopher: repeated lines'),
        (PROSE + ' well, you know what' * 12, 'Gopher: one 2-gram too often'),
        (PROSE + ' ' + PROSE, 'Gopher: repeated 5-grams'),
        (CHINESE + CHINESE, 'Gopher: repeated 5-grams'),
    ],
)
def test_repetition_is_dropped(text: str, why: str):
    assert reason(repetition.gopher_repetition(text)) == why


@settings(deadline=None)  # the first text loads the model
@given(st.text())
def test_filters_take_any_text_and_change_none(text: str):
    for step in (
        lambda text: quality.gopher_quality(True, text),
        repetition.gopher_repetition,
        lambda text: quality.bound_symbols(0.3, text),
        lambda text: languages.in_languages(('en',), 0.5, text),
    ):
        result = step(text)
        assert isinstance(result, Dropped) or result == text


def test_languages_are_told_apart_without_a_network():
    assert languages.identify(PROSE)[0] == 'en'
    assert languages.identify(CHINESE)[0] == 'zh'
    assert languages.in_languages(('en', 'zh'), 0.5, PROSE) == PROSE
    german = (
        'Der Ausschuss hat beschlossen, dass alle Mitglieder gefragt werden sollen, was sie davon halten.'
    )
    assert reason(languages.in_languages(('en', 'zh'), 0.5, german)) == 'language de'


def test_block_lists_know_where_words_end_and_that_chinese_ones_do_not(tmp_path):
    path = str(tmp_path / 'list.txt')
    (tmp_path / 'list.txt').write_text('# a comment\nass\nBad Phrase\n坏话\n', encoding='utf-8')
    for text in ('a class of glass', 'bad phrases', '不坏，话多', 'a bad  phrase'):
        assert block_list.hold_none(path, text) == text
    for text in ('Ass!', 'one bad phrase, two', '他说坏话了'):
        assert reason(block_list.hold_none(path, text)) == 'on the block list'
    (tmp_path / 'empty.txt').write_text('# nothing\n')
    with pytest.raises(UserError, match='holds no phrase'):
        block_list.hold_none(str(tmp_path / 'empty.txt'), 'text')


@given(st.text())
def test_words_are_runs_of_letters_and_single_characters_of_unspaced_scripts(text: str):
    found = word_hashes.find_words(text)
    pieces = [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)]
    assert all(piece.strip() == piece and piece for piece in pieces)
    again = [word_hashes.find_words(piece).hashes.tolist() for piece in pieces]
    assert [hashes for one in again for hashes in one] == found.hashes.tolist()


def test_words_of_mixed_scripts():
    text = "Don't 吃 3.5 Äpfel，東京タワー ok"
    found = word_hashes.find_words(text)
    pieces = [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)]
    assert pieces == ['Don', 't', '吃', '3', '5', 'Äpfel', '東', '京', 'タ', 'ワ', 'ー', 'ok']
    assert word_hashes.find_words('ÄPFEL').hashes.tolist() == word_hashes.find_words('äpfel').hashes.tolist()
    assert (
        len(set(word_hashes.find_words(' '.join(f'w{n}' for n in range(10_000))).hashes.tolist())) == 10_000
    )
