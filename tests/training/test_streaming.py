"""Texts that are watched end as if they were read after every token, and are printed but once."""

from __future__ import annotations

import numpy as np
import pytest

from training.streaming import TextWatch, up_to

PIECES = ['', 'st', 'op', 'opera', 'la', ' ', 'x', 'stop', '\n', 'S']


def decode(ids):
    return ''.join(PIECES[i] for i in ids)


def read_bytes(ids):
    return bytes(ids.tolist()).decode(errors='replace')


def ids(*pieces):
    return np.array([PIECES.index(piece) for piece in pieces], np.int32)


@pytest.mark.parametrize('every', [1, 2, 3, 10])
@pytest.mark.parametrize(
    ('prompt', 'new', 'stop', 'end'),
    [
        (['x'], ['x', 'st', 'op', 'x'], ['stop'], 3),
        (['x'], ['x', 'la', 'stop', 'x'], ['stop'], 3),
        (['x'], ['st', 'opera', 'x'], ['stop'], 2),
        (['st'], ['op', 'x', 'x'], ['stop'], 1),
        (['stop'], ['x', 'x'], ['stop'], None),
        (['stop'], ['x', 'stop', 'x'], ['stop'], 2),
        (['x'], ['x', '\n', 'stop'], ['stop', '\n'], 2),
        (['x'], ['x', 'x'], ['stop'], None),
    ],
)
def test_a_text_ends_with_the_token_that_completes_a_stop_string(prompt, new, stop, end, every):
    watch = TextWatch(decode, [ids(*prompt), ids('x')], stop)
    new = ids(*new)
    ends = [None, None]
    for count in range(every, len(new) + every, every):
        ends = watch([new[:count], ids('x')])
    assert ends == [end, None]


@pytest.mark.parametrize('every', [1, 2, 3])
def test_only_whole_characters_are_written_and_each_once(every):
    text = 'aé漢🙂b'.encode()
    written = []
    watch = TextWatch(read_bytes, [np.array(list(b'> '))], write=written.append)
    for count in range(every, len(text) + every, every):
        watch([np.array(list(text[:count]))])
        assert '\ufffd' not in written[-1]
    watch.finish('> aé漢🙂b')
    assert ''.join(written) == '> aé漢🙂b'


def test_a_broken_end_is_written_at_last():
    written = []
    watch = TextWatch(read_bytes, [np.array([65])], write=written.append)
    watch([np.array([66, 0xE2])])
    watch.finish('AB\ufffd')
    assert written == ['AB', '\ufffd']


def test_nothing_is_written_past_a_stop_string():
    written = []
    watch = TextWatch(decode, [ids('x')], ['stop'], written.append)
    watch([ids('st', 'op', 'x')])
    assert ''.join(written) == 'xstop'


@pytest.mark.parametrize(
    ('text', 'stop', 'kept'),
    [
        ('one. two\n\nthree', ['\n\n', '.'], 'one'),
        ('one two', ['.'], 'one two'),
        ('。你好。', ['。'], ''),
        ('one', [], 'one'),
    ],
)
def test_a_text_is_kept_up_to_the_first_stop_string(text, stop, kept):
    assert up_to(text, stop) == kept
