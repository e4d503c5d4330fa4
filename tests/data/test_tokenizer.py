from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data import pieces
from data.sentencepiece_tokenizer import train
from data.tokenizer import Tokenizer, load

SPECIALS = [
    *[
        'a',
        'the',
        ' ',
        '   ',
        '\n',
        '\n\n',
        '\t',
        '\0',
        '\r\n',
        '\u2581',
        '\u2581\u2581',
        '\u2585',
        '数据',
        '😀',
    ],
    *[
        '<s>',
        '</s>',
        '<unk>',
        '<pad>',
        '<0x41>',
        'é',
        'e\u0301',
        '\u200d',
        '\ufeff',
        '\uffff',
        '\U0010ffff',
        '\x85',
    ],
]
TEXT = [
    'The quick brown fox jumps over the lazy dog.\n\tdef f(x):\n\t\treturn x\n',
    '数据 and loss \u2581 \0 x',
] * 60


@pytest.fixture(scope='module', params=['bpe', 'unigram'])
def encoder(request: pytest.FixtureRequest) -> Tokenizer:
    return train(TEXT, kind=request.param, vocab_size=296)


def test_any_text_survives_the_round_trip(encoder: Tokenizer) -> None:
    rng = random.Random(0)
    token_bytes = encoder.token_bytes()
    for _ in range(2000):
        text = ''.join(rng.choices(SPECIALS, k=rng.randrange(25)))
        ids = encoder.encode(text)
        assert encoder.decode(ids) == text
        assert token_bytes[ids].sum() == len(text.encode())
    for _ in range(300):
        text = ''.join(
            chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(20)
        )
        assert encoder.decode(encoder.encode(text)) == text


def test_long_texts_survive_and_are_cut_where_tokens_are_not(encoder: Tokenizer) -> None:
    lines = TEXT[0] * 300
    assert encoder.decode(encoder.encode(lines)) == lines
    assert np.array_equal(encoder.encode(lines), np.concatenate([encoder.encode(TEXT[0])] * 300))
    unbroken = 'xy😀' * 200_000
    assert encoder.decode(encoder.encode(unbroken)) == unbroken


def test_batches_and_documents_hold_the_same_ids(encoder: Tokenizer) -> None:
    texts = ['', 'the fox', 'a \u2581 b', 'dog ' * 3000]
    for text, ids, document in zip(
        texts, encoder.encode_batch(texts), encoder.encode_documents(texts), strict=True
    ):
        assert ids.dtype == np.int32
        assert np.array_equal(ids, encoder.encode(text))
        assert document.tolist() == [encoder.bos_id, *ids.tolist(), encoder.eos_id]


def test_training_is_repeatable_and_control_ids_stand_for_no_bytes(
    encoder: Tokenizer, tmp_path: Path
) -> None:
    encoder.save(tmp_path / 'tokenizer')
    again = load(tmp_path / 'tokenizer')
    assert again.fingerprint == encoder.fingerprint
    assert (again.pad_id, again.bos_id, again.eos_id) == (0, 1, 2)
    assert again.token_bytes()[:4].tolist() == [0, 0, 0, 0]
    assert again.decode([1, *again.encode('fox').tolist(), 2, 0, 5000]) == 'fox'


@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
def test_a_text_without_spaces_makes_a_tokenizer_with_them(kind: str) -> None:
    tokenizer = train(['语言模型学习文字。敏捷的狐狸跳过懒狗。\n'] * 20, kind=kind, vocab_size=279)
    for text in ('def f(x): return x', '你好 世界', '  ', 'a\u2581 b'):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
def test_control_symbols_follow_the_four_and_stand_for_no_text(kind: str) -> None:
    controls = ('[MASK]', '<extra_id_0>', '<extra_id_1>', 'a,"b')
    tokenizer = train(TEXT, kind=kind, vocab_size=300, control_symbols=controls)
    assert tokenizer.mask_id == 4
    assert tokenizer.sentinel_ids.tolist() == [5, 6]
    assert tokenizer.sentinel_ids.dtype == np.int32
    assert tokenizer.token_bytes()[:9].tolist() == [0] * 8 + [1]
    text = 'x [MASK] <extra_id_0>'
    ids = tokenizer.encode(text)
    assert ids.min() > 7, 'a text that names a symbol is no symbol'
    assert tokenizer.decode([4, *ids.tolist(), 5, 7]) == text
    plain = train(TEXT, kind=kind, vocab_size=296)
    assert (plain.mask_id, plain.sentinel_ids.tolist()) == (None, [])


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """Returns the text of each word, a newline for itself."""
    ids, starts = tokenizer.encode(text), tokenizer.word_starts()
    cuts = [i for i in range(1, len(ids)) if starts[ids[i]]]
    return [tokenizer.decode(part) for part in np.split(ids, cuts)]


def test_words_begin_at_spaces_and_at_what_is_no_letter(encoder: Tokenizer) -> None:
    assert words(encoder, 'The jumping foxé ran') == ['The', ' jumping', ' foxé', ' ran']
    assert words(encoder, "dog's (7 dogs), 😀!") == [
        'dog',
        "'s",
        ' ',
        '(',
        '7',
        ' dogs',
        ')',
        ',',
        ' ',
        '😀',
        '!',
    ]
    assert words(encoder, '数据语言ab') == ['数', '据', '语', '言ab']
    assert words(encoder, 'Кошка 고양이') == ['Кошка', ' 고양이']
    assert encoder.word_starts()[:4].all()
    assert encoder.word_starts().dtype == bool


@pytest.mark.parametrize(
    ('text', 'begins'),
    [
        (b'', True), (b' the', True), (b'\n', True), (b'the', False), (b'7', True), (b"'", True),
        ('é'.encode(), False), ('\u0301'.encode(), False), ('中文'.encode(), True), ('の'.encode(), True),
        ('々'.encode(), True), ('，'.encode(), True), ('😀'.encode(), True), ('고'.encode(), False),
        ('é'.encode()[:1], False), ('中'.encode()[:2], True), ('中'.encode()[1:], False),
        ('😀'.encode()[:3], True), ('고'.encode()[:2], False), (b'\xa0a', False), ('“'.encode()[:1], True),
    ],
)  # fmt: skip
def test_a_token_begins_a_word_by_its_first_character(text: bytes, begins: bool) -> None:
    assert pieces.begins_word(text) is begins


def test_same_text_gives_the_same_model() -> None:
    first, second = (train(TEXT, kind='unigram', vocab_size=296).fingerprint for _ in range(2))
    assert first == second


def test_impossible_requests_say_what_works() -> None:
    with pytest.raises(UserError, match=r'largest that works is \d+'):
        train(TEXT, kind='bpe', vocab_size=9000)
    with pytest.raises(UserError, match=r'smallest that works, \d+'):
        train(TEXT, kind='bpe', vocab_size=100)
    with pytest.raises(UserError, match='no text'):
        train([], kind='bpe', vocab_size=300)
    with pytest.raises(UserError, match='unigram'):
        train(TEXT, kind='wordpiece', vocab_size=300)


def test_half_a_surrogate_pair_is_refused(encoder: Tokenizer) -> None:
    with pytest.raises(UserError, match=r'ud800.*character 2'):
        encoder.encode('ab\ud800')


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'some.model').write_bytes(b'not a model')
    with pytest.raises(UserError, match='no SentencePiece model'):
        load(tmp_path / 'some.model')
    with pytest.raises(UserError, match=r'prepare\.py'):
        load(tmp_path / 'absent')


def test_a_vocabulary_is_as_large_as_the_text_supports_if_that_is_asked_for():
    texts = ['To be, or not to be', '你好，世界'] * 5
    with pytest.raises(UserError, match='the largest that works is'):
        train(texts, kind='bpe', vocab_size=4096)
    tokenizer = train(texts, kind='bpe', vocab_size=4096, at_most=True)
    assert tokenizer.vocab_size < 400
    assert tokenizer.decode(tokenizer.encode('to 世界 😀\n')) == 'to 世界 😀\n'
