from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.errors import UserError
from data import loader
from data.preparation import prepare
from data.sentencepiece_tokenizer import train
from data.tokenizer import Tokenizer, load
from tests.data import tiny_tokenizers

HARD = ['', 'the fox', ' two  spaces ', '数据', '😀 e\u0301', 'a\tb\r\nc\n\n', '\0\u2581\ufeff', 'x' * 5000]
QUESTION = [{'role': 'user', 'content': 'wie "schön"?', 'name': None}]


@pytest.fixture(scope='module')
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('tokenizers')
    made = {name: getattr(tiny_tokenizers, name)(root / name) for name in ('gpt2', 'llama', 'bert')}
    made['gpt2-files'] = root / 'gpt2-files'  # as in 2019: no tokenizer.json
    shutil.copytree(made['gpt2'], made['gpt2-files'])
    (made['gpt2-files'] / 'tokenizer.json').unlink()
    return made


@pytest.fixture(params=['gpt2', 'gpt2-files', 'llama', 'bert'])
def directory(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Path:
    return directories[request.param]


@pytest.fixture
def encoder(directory: Path) -> Tokenizer:
    return load(directory)


def pieces(directory: Path) -> dict[str, int]:
    if (directory / 'vocab.txt').exists():
        return {line: i for i, line in enumerate((directory / 'vocab.txt').read_text().splitlines())}
    return json.loads((directory / 'tokenizer.json').read_text())['model']['vocab']


@pytest.mark.parametrize('name', ['gpt2', 'gpt2-files'])
def test_byte_level_text_survives_and_every_byte_is_counted(directories: dict[str, Path], name: str) -> None:
    encoder = load(directories[name])
    for text in HARD:
        ids = encoder.encode(text)
        assert encoder.decode(ids) == text
        assert encoder.token_bytes()[ids].sum() == len(text.encode())


def test_gpt2_has_one_symbol_for_begin_end_and_padding(directories: dict[str, Path]) -> None:
    vocabulary = pieces(directories['gpt2'])
    for name in ('gpt2', 'gpt2-files'):
        encoder = load(directories[name])
        end = encoder.vocab_size - 1
        assert end == len(vocabulary) == 298
        assert (encoder.bos_id, encoder.eos_id, encoder.pad_id, encoder.mask_id) == (end, end, end, None)
        the_fox = [vocabulary['the'], vocabulary['Ġfox']]
        assert encoder.encode('the fox').tolist() == encoder.encode_prompt('the fox').tolist() == the_fox
        assert encoder.encode_documents(['the fox'])[0].tolist() == [end, *the_fox, end]
        assert encoder.encode('the<|endoftext|>').tolist() == [vocabulary['the'], end]
        assert encoder.token_bytes()[[*the_fox, end]].tolist() == [3, 4, 0]


def test_llama_spells_rare_characters_in_bytes_and_begins_prompts(directories: dict[str, Path]) -> None:
    vocabulary = pieces(directories['llama'])
    encoder = load(directories['llama'])
    assert (encoder.bos_id, encoder.eos_id, encoder.pad_id, encoder.mask_id) == (1, 2, 2, None)
    expected = [vocabulary[piece] for piece in ('▁the', '▁', '<0xE6>', '<0x95>', '<0xB0>', '<0x0A>')]
    assert encoder.encode('the 数\n').tolist() == expected
    assert encoder.encode_prompt('the 数\n').tolist() == [1, *expected]
    assert encoder.encode_documents(['the 数\n'])[0].tolist() == [1, *expected, 2]
    assert encoder.token_bytes()[[0, 1, 2, *expected]].tolist() == [0, 0, 0, 4, 1, 1, 1, 1, 1]
    for text in ('the fox', '数据', '😀 e\u0301', 'a\tb\r\nc\n\n', 'x' * 5000):
        ids = encoder.encode(text)
        assert encoder.decode(ids) == text
        assert encoder.token_bytes()[ids].sum() == 1 + len(text.encode())  # a space is put before the text


def test_bert_lowers_case_and_frames_prompts(directories: dict[str, Path], tmp_path: Path) -> None:
    vocabulary = pieces(directories['bert'])
    encoder = load(directories['bert'])
    ids = (encoder.pad_id, encoder.bos_id, encoder.eos_id, encoder.mask_id)
    assert ids == (0, 2, 3, 4)
    assert encoder.vocab_size == len(vocabulary)
    expected = [vocabulary[piece] for piece in ('the', 'fox', 'de', '##x', '[UNK]')]
    assert encoder.encode('The FOX déx 😀').tolist() == expected
    assert encoder.encode_prompt('fox [MASK]').tolist() == [2, vocabulary['fox'], 4, 3]
    assert encoder.token_bytes()[expected].tolist() == [3, 3, 2, 1, 0]
    assert encoder.decode([2, *expected[:4], 3, 0, 900]) == 'the fox dex'

    cased = tmp_path / 'cased'
    shutil.copytree(directories['bert'], cased)
    (cased / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
    assert load(cased).encode('the FOX').tolist() == [vocabulary['the'], 1]


def test_words_begin_where_each_kind_of_vocabulary_says(directories: dict[str, Path]) -> None:
    for name, word, rest in (('gpt2', 'Ġfox', 'ox'), ('llama', '▁fox', 'ox'), ('bert', 'fox', '##x')):
        encoder, vocabulary = load(directories[name]), pieces(directories[name])
        starts = encoder.word_starts()
        assert starts.shape == (encoder.vocab_size,)
        assert starts[[vocabulary[word], encoder.bos_id, encoder.eos_id]].all()
        assert not starts[vocabulary[rest]]
    assert load(directories['gpt2']).word_starts()[pieces(directories['gpt2'])['Ċ']]  # a newline
    llama = pieces(directories['llama'])
    bytes_of_llama = load(directories['llama']).word_starts()[
        [llama['<0x0A>'], llama['<0x61>'], llama['<0x95>']]
    ]
    assert bytes_of_llama.tolist() == [True, False, False]


def test_sentinels_are_found_in_the_order_of_their_numbers(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    assert load(directories['bert']).sentinel_ids.shape == (0,)
    shutil.copytree(directories['llama'], tmp_path, dirs_exist_ok=True)
    names = ['<extra_id_1>', '<extra_id_0>', '<extra_id_3>']
    (tmp_path / 'special_tokens_map.json').write_text(json.dumps({'additional_special_tokens': names}))
    encoder = load(tmp_path)
    assert encoder.sentinel_ids.tolist() == [encoder.vocab_size - 2, encoder.vocab_size - 3]
    assert encoder.sentinel_ids.dtype == np.int32


def test_batches_hold_the_same_ids_and_foreign_ids_are_skipped(encoder: Tokenizer) -> None:
    texts = ['', 'the fox', 'dog ' * 3000]
    for text, ids, document in zip(
        texts, encoder.encode_batch(texts), encoder.encode_documents(texts), strict=True
    ):
        assert ids.dtype == document.dtype == encoder.encode_prompt(text).dtype == np.int32
        assert np.array_equal(ids, encoder.encode(text))
        assert document.tolist() == [encoder.bos_id, *ids.tolist(), encoder.eos_id]
    ids = encoder.encode('fox').tolist()
    assert encoder.decode([encoder.bos_id, *ids, encoder.eos_id, encoder.vocab_size, 10**9]) == 'fox'
    assert encoder.token_bytes().shape == (encoder.vocab_size,)
    assert encoder.token_bytes().dtype == np.int32
    with pytest.raises(UserError, match=r'ud800.*character 2'):
        encoder.encode('ab\ud800')


def test_a_saved_tokenizer_is_the_same_files_and_replaces_another(directory: Path, tmp_path: Path) -> None:
    encoder = load(directory)
    train(['a b c'] * 9, kind='bpe', vocab_size=264).save(tmp_path)
    encoder.save(tmp_path)
    again = load(tmp_path)
    assert again.fingerprint == encoder.fingerprint
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (directory / path.name).read_bytes()
    sentencepiece = train(['a b c'] * 9, kind='bpe', vocab_size=264)
    sentencepiece.save(tmp_path)
    assert load(tmp_path).fingerprint == sentencepiece.fingerprint


def test_fingerprints_tell_settings_apart_but_not_a_models_other_facts(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(directories['gpt2'], tmp_path, dirs_exist_ok=True)
    before = load(tmp_path).fingerprint
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config | {'dtype': 'bfloat16'}))
    assert load(tmp_path).fingerprint == before
    (tmp_path / 'config.json').write_text(json.dumps(config | {'eos_token_id': [7, 8]}))
    assert load(tmp_path).eos_id == 7
    assert load(tmp_path).fingerprint != before


def test_tokens_that_settings_add_come_after_the_vocabulary(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    for name in ('gpt2', 'gpt2-files'):
        directory = tmp_path / name
        shutil.copytree(directories[name], directory)
        settings = {'pad_token': '[PAD]', 'eos_token': {'content': '<|endoftext|>', 'lstrip': False}}
        settings['additional_special_tokens'] = ['<|user|>']
        (directory / 'tokenizer_config.json').write_text(json.dumps(settings))
        encoder = load(directory)
        assert (encoder.eos_id, encoder.pad_id, encoder.vocab_size) == (298, 299, 301)
        assert encoder.encode('<|user|>').tolist() == [300]
        assert encoder.token_bytes()[298:].tolist() == [0, 0, 0]


def test_chats_are_rendered_and_what_a_template_refuses_is_said(directories: dict[str, Path]) -> None:
    expected = '{}[user] "wie \\"schön\\"?"{}\n[assistant] '
    assert load(directories['gpt2']).apply_chat(QUESTION) == expected.format('<|endoftext|>', '<|endoftext|>')
    assert load(directories['llama']).apply_chat(QUESTION) == expected.format('<s>', '</s>')
    with pytest.raises(UserError, match=r"roles \['system'\]: no system"):
        load(directories['llama']).apply_chat([{'role': 'system', 'content': ''}])
    with pytest.raises(UserError, match=r'bert has no chat template.*chat_template\.jinja'):
        load(directories['bert']).apply_chat(QUESTION)
    with pytest.raises(UserError, match='no chat template'):
        train(['a b c'] * 9, kind='bpe', vocab_size=264).apply_chat(QUESTION)


def test_templates_run_in_a_sandbox(directories: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(directories['llama'], tmp_path, dirs_exist_ok=True)
    (tmp_path / 'chat_template.jinja').write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(UserError, match='unsafe'):
        load(tmp_path).apply_chat(QUESTION)


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('tokenizer.json', b'{"model": ', r'tokenizer\.json is no file that the tokenizers library reads'),
        ('tokenizer.json', b'{}', r'tokenizer\.json is no file that the tokenizers library reads'),
        ('tokenizer.json', b'\xff', r'tokenizer\.json is not UTF-8'),
        ('tokenizer_config.json', b'{"eos', r'tokenizer_config\.json is no JSON'),
        ('tokenizer_config.json', b'[]', r'tokenizer_config\.json holds a JSON list'),
        ('config.json', b'{"eos_token_id": 50256}', r'eos_token_id=50256.*ids below 299'),
    ],
)
def test_broken_files_are_named(
    directories: dict[str, Path], tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    shutil.copytree(directories['gpt2'], tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_directories_without_a_tokenizer_or_an_end_symbol_are_refused(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r'expected tokenizer\.json, .* or words\.json'):
        load(tmp_path)
    shutil.copy(directories['gpt2'] / 'vocab.json', tmp_path)
    with pytest.raises(UserError, match=r'no tokenizer at .*merges\.txt'):
        load(tmp_path)
    content = json.loads((directories['gpt2'] / 'tokenizer.json').read_text())
    (tmp_path / 'tokenizer.json').write_text(json.dumps(content | {'added_tokens': []}))
    with pytest.raises(UserError, match=r'which token ends a text: expected eos_token'):
        load(tmp_path)


def test_the_newer_of_two_formats_wins(directories: dict[str, Path], tmp_path: Path) -> None:
    train(['a b c'] * 9, kind='bpe', vocab_size=264).save(tmp_path)
    assert load(tmp_path).vocab_size == 264
    shutil.copytree(directories['llama'], tmp_path, dirs_exist_ok=True)
    assert load(tmp_path).fingerprint == load(directories['llama']).fingerprint


@pytest.mark.parametrize('mode', ['shards', 'stream'])
def test_a_directory_prepares_data_and_goes_with_it(
    config: ConfigDict, directories: dict[str, Path], mode: str
) -> None:
    config.tokenizer.path = str(directories['gpt2-files'])
    config.data.mode = mode
    expected = load(directories['gpt2-files'])
    assert prepare(config).tokenizer.fingerprint == expected.fingerprint
    assert prepare(config).was_finished
    batches = loader.load(config, split='train')
    assert batches.tokenizer.fingerprint == expected.fingerprint
    rows, _ = next(iter(batches.batches(batches.initial_position())))
    assert rows.max() == expected.eos_id
    text = [token for token in rows[0].tolist() if token != expected.eos_id]
    assert expected.encode(expected.decode(rows[0])).tolist() == text


def test_a_t5_model_gets_its_sentinels_and_ends_prompts(tmp_path: Path) -> None:
    encoder = load(tiny_tokenizers.t5(tmp_path / 't5'))
    end = encoder.vocab_size
    assert (encoder.pad_id, encoder.eos_id, encoder.bos_id, encoder.mask_id) == (0, 1, 1, None)
    assert encoder.sentinel_ids.tolist() == list(range(end - 1, end - 101, -1))
    ids = encoder.encode_prompt('the  ﬁne\nfox <extra_id_0>').tolist()
    assert ids[-2:] == [end - 1, 1]
    assert encoder.decode(ids) == 'the fine fox'
    assert encoder.token_bytes()[ids].sum() == len(' the fine fox')
    assert encoder.token_bytes()[[0, 1, 2, end - 1]].tolist() == [0, 0, 0, 0]
    starts = encoder.word_starts()[ids].tolist()
    assert sum(starts) == len(['the', 'fine', 'fox', 'sentinel', 'end'])
    encoder.save(tmp_path / 'saved')
    assert load(tmp_path / 'saved').fingerprint == encoder.fingerprint


@pytest.mark.parametrize('settings', [{'tokenizer_class': 'PegasusTokenizer'}, {}])
def test_a_spiece_model_of_another_family_is_refused(tmp_path: Path, settings: dict) -> None:
    tiny_tokenizers.t5(tmp_path, **({} if settings else {'pad_piece': '<nothing>'}))
    tiny_tokenizers.write_json(tmp_path, tokenizer_config=settings)
    kind = settings.get('tokenizer_class', 't5')
    with pytest.raises(
        UserError, match=rf'spiece\.model is not of the T5 family \(kind {kind}; .*save_pretrained'
    ):
        load(tmp_path)
