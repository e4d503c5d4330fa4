"""The same files give transformers and Lathe the same ids, texts and prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.sentencepiece_tokenizer import train
from data.tokenizer import export, load
from tests.data import tiny_tokenizers

transformers = pytest.importorskip('transformers')

TEXTS = [
    '',
    'the fox',
    ' Two  spaces ',
    '数据 and 😀',
    'def f(x):\n\treturn x\n',
    'x <|endoftext|></s>[MASK] y',
    'ﬁne ＦＯＸ\u00a0e\u0301 \u200b a<extra_id_0> <extra_id_12>the  ',
]
CHATS = [
    [{'role': 'user', 'content': 'the "fox" <b>é</b>'}],
    [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b\n', 'tool_calls': None}],
]


def old_gpt2(directory: Path) -> Path:
    tiny_tokenizers.gpt2(directory)
    (directory / 'tokenizer.json').unlink()
    return directory


def old_gpt2_with_added_tokens(directory: Path) -> Path:
    old_gpt2(directory)
    settings = {'add_bos_token': True, 'pad_token': '[PAD]', 'additional_special_tokens': ['<|user|>']}
    path = directory / 'tokenizer_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return directory


def qwen(directory: Path) -> Path:
    """No begin symbol, and tokens beyond the vocabulary, one of which is not special."""
    tiny_tokenizers.gpt2(directory)
    (directory / 'config.json').unlink()
    added = {'<|endoftext|>': True, '<|im_start|>': True, '<|im_end|>': True, '<tool_call>': False}
    settings = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'bos_token': None,
        'eos_token': '<|im_end|>',
        'pad_token': '<|endoftext|>',
        'chat_template': tiny_tokenizers.CHAT,
        'added_tokens_decoder': {
            str(298 + i): {'content': token, 'special': special, 'normalized': False}
            for i, (token, special) in enumerate(added.items())
        },
    }
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
    return directory


def cased_bert(directory: Path) -> Path:
    tiny_tokenizers.bert(directory)
    settings = {'tokenizer_class': 'BertTokenizer', 'do_lower_case': False}
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
    return directory


def t5_of_few_settings(directory: Path) -> Path:
    tiny_tokenizers.t5(directory)
    (directory / 'special_tokens_map.json').unlink()
    settings = {'tokenizer_class': 'T5Tokenizer', 'extra_ids': 3}
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
    return directory


def mt5(directory: Path) -> Path:
    """Its sentinels are pieces of the model."""
    sentinels = [f'▁<extra_id_{number}>' for number in reversed(range(4))]
    tiny_tokenizers.t5(directory, user_defined_symbols=sentinels)
    (directory / 'special_tokens_map.json').unlink()
    settings = {'extra_ids': 0, 'additional_special_tokens': None, 'eos_token': '</s>'}
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
    (directory / 'config.json').write_text(json.dumps({'model_type': 'mt5'}))
    return directory


MAKERS = [
    tiny_tokenizers.gpt2,
    old_gpt2,
    old_gpt2_with_added_tokens,
    qwen,
    tiny_tokenizers.llama,
    tiny_tokenizers.bert,
    cased_bert,
    tiny_tokenizers.t5,
    t5_of_few_settings,
    mt5,
]


@pytest.mark.parametrize('make', MAKERS, ids=lambda make: make.__name__)
def test_ids_texts_and_chats_are_those_of_transformers(make, tmp_path: Path) -> None:
    ours = load(make(tmp_path / 'published'))
    ours.save(tmp_path / 'saved')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'saved')
    assert ours.vocab_size == len(theirs)
    assert ours.eos_id == (theirs.eos_token_id if theirs.eos_token else theirs.sep_token_id)
    assert ours.bos_id == (theirs.bos_token_id or theirs.cls_token_id or ours.eos_id)
    assert ours.mask_id == theirs.mask_token_id
    sentinels = [piece.lstrip('▁') for piece in theirs.convert_ids_to_tokens(ours.sentinel_ids.tolist())]
    assert sentinels == [f'<extra_id_{number}>' for number in range(len(sentinels))]
    assert len(sentinels) == {'t5': 100, 't5_of_few_settings': 3, 'mt5': 4}.get(make.__name__, 0)
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode_prompt(text).tolist() == ids
        assert ours.encode(text).tolist() == theirs(text, add_special_tokens=False).input_ids
        decoded = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids) == decoded
    for chat in CHATS if ours.chat_template else ():
        expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert ours.apply_chat(chat) == expected


@pytest.mark.parametrize('mask', ['<mask>', '[MASK]'])
def test_control_symbols_of_a_trained_tokenizer_are_special_at_transformers(
    mask: str, tmp_path: Path
) -> None:
    symbols = ('<extra_id_0>', mask, '<extra_id_1>')
    ours = train(tiny_tokenizers.TEXTS, kind='bpe', vocab_size=300, control_symbols=symbols)
    export(ours, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.mask_token, theirs.mask_token_id) == (mask, ours.mask_id)
    assert theirs.convert_tokens_to_ids(['<extra_id_0>', '<extra_id_1>']) == ours.sentinel_ids.tolist()
    assert theirs('the fox').input_ids == ours.encode_prompt('the fox').tolist()
    assert (
        theirs.decode([*ours.sentinel_ids, ours.mask_id, *ours.encode('fox')], skip_special_tokens=True)
        == 'fox'
    )


TEMPLATE = (
    '{%- for m in messages %}\n  {%- if loop.index > 2 %}{% break %}{% endif %}\n'
    '{% generation %}{% set x = m.content %}{{ x | tojson(indent=1) }}{% endgeneration %}\n'
    '{%- endfor %}{{ x }}{{ tools is none }}{{ pad_token }}{{ unk_token }}\n'
)


def test_unusual_templates_are_rendered_alike(tmp_path: Path) -> None:
    directory = tiny_tokenizers.llama(tmp_path)
    (directory / 'chat_template.jinja').write_text(TEMPLATE)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    chat = [{'role': 'user', 'content': text} for text in ('<é>', 'b', 'c')]
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert load(directory).apply_chat(chat) == expected
