"""A trained SentencePiece model, read by the tokenizers library."""

from __future__ import annotations

import pytest

from data import tokenizer as tokenizers
from data.sentencepiece_tokenizer import train

TEXTS = [
    'The quick brown fox jumps over the lazy dog, and the dog sleeps.\n',
    '语言模型学习文字。敏捷的狐狸跳过懒狗。\n',
    'def function(argument):\n    return argument + 1\n',
]
HARD = [
    '',
    ' ',
    '  two  spaces\t\ttabs\n\nlines ',
    '混合 English 与中文，🎉 émigré',
    'never seen: ß 𝔘 ﷽ \x00',
    'The dog sleeps. ' * 50,
]


@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
@pytest.mark.parametrize('controls', [(), ('<mask>', '<extra_id_1>', '<extra_id_0>')])
def test_ids_and_texts_are_the_same(tmp_path, kind, controls):
    trained = train(TEXTS * 30, kind=kind, vocab_size=320, control_symbols=controls)
    tokenizers.export(trained, tmp_path)
    fast = tokenizers.load(tmp_path)
    assert type(fast) is not type(trained)
    names = ('vocab_size', 'pad_id', 'bos_id', 'eos_id', 'mask_id')
    assert [getattr(fast, name) for name in names] == [getattr(trained, name) for name in names]
    assert fast.sentinel_ids.tolist() == trained.sentinel_ids.tolist() == ([6, 5] if controls else [])
    assert fast.decode(range(4 + len(controls))) == ''
    assert fast.token_bytes().tolist() == trained.token_bytes().tolist()
    assert fast.word_starts().tolist() == trained.word_starts().tolist()
    for text in TEXTS + HARD:
        assert fast.encode(text).tolist() == trained.encode(text).tolist()
        assert fast.encode_prompt(text).tolist() == trained.encode_prompt(text).tolist()
        assert fast.decode(fast.encode(text)) == text
