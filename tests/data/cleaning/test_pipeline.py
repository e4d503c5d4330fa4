from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from configs import base, cleaning
from configs.errors import UserError
from data import report
from data.cleaning.pipeline import Pipeline
from data.cleaning.steps import Dropped
from data.cleaning.tally import Tally, total
from data.documents import Document
from tests.data.cleaning.test_quality import CHINESE, PROSE

PIECES = st.sampled_from(
    [
        PROSE,
        CHINESE,
        *'ａ１．＜ｂ＞＆ａｍｐ；&#769;&#1;e\u0301\x00\x85\r\n\t \u3000\ufeff<>漢乾\udc80\ud800',
        '<p>',
        '&amp;lt;br&gt;',
        '&#13;',
        '&nbsp;',
        'me@example.com',
        '138 1234 5678',
        '8.8.8.8',
        '\n\n',
    ]
)
TEXTS = st.lists(PIECES, max_size=12).map(''.join)


def pipeline(**keys: object) -> Pipeline:
    config = base.get_config()
    config.data.cleaning.update(keys)
    return Pipeline(cleaning.resolve(config))


STRICT = pipeline(preset='strict')
CHANGES = pipeline(preset='strict', min_characters=0, max_symbols=1.0, gopher_quality=False, languages=(),
                   gopher_repetition=False, c4=False)  # fmt: skip


@settings(deadline=None)
@given(st.one_of(TEXTS, st.text(), st.binary().map(lambda content: content.decode(errors='surrogateescape'))))
def test_what_is_clean_stays_as_it_is(text: str):
    for steps in (STRICT, CHANGES):
        once = list(steps.clean([Document('d', text)]))
        tally = Tally()
        assert list(steps.clean(once, tally)) == once
        assert not any(step.changed or step.dropped for step in tally.steps.values())


@settings(deadline=None)
@given(st.lists(st.one_of(TEXTS, st.text()), max_size=5))
def test_documents_and_bytes_add_up(texts: list[str]):
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    tally, removed = Tally(), []
    kept = list(STRICT.clean(documents, tally, removed.append))
    said = report.describe(tally)
    assert said['documents_in'] == len(texts) == len(kept) + len(removed)
    assert said['documents_out'] == len(kept)
    assert said['bytes_out'] == sum(len(document.text.encode()) for document in kept)
    before = said
    for step in said['steps']:
        kind = 'in' if before is said else 'out'
        assert (step['documents_in'], step['bytes_in']) == (
            before[f'documents_{kind}'],
            before[f'bytes_{kind}'],
        )
        assert step['bytes_in'] + step['bytes_difference'] - step['bytes_dropped'] == step['bytes_out']
        assert step['documents_dropped'] == sum(step['reasons'].values())
        before = step
    json.dumps(tally.to_json(), ensure_ascii=False).encode()  # examples can be written
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_sums_of_tallies_are_tallies_of_all():
    documents = [Document(str(n), text) for n, text in enumerate([PROSE, CHINESE, 'short', PROSE + '\x00'])]
    parts = []
    for at in range(len(documents)):
        parts.append(Tally())
        list(STRICT.clean(documents[at : at + 1], parts[-1]))
    whole = Tally()
    list(STRICT.clean(documents, whole))
    assert total(parts) == whole


def test_examples_show_what_changed_but_no_personal_data():
    tally = Tally()
    list(CHANGES.clean([Document('a', 'mail me@example.com\x07 now')], tally))
    controls, emails = tally.steps['controls'].examples, tally.steps['emails'].examples
    assert controls == [{'id': 'a', 'before': 'mail [EMAIL]\x07 now', 'after': 'mail [EMAIL] now'}]
    assert emails == [{'id': 'a', 'after': 'mail [EMAIL] now'}]
    assert tally.steps['emails'].items == 1


def test_of_pairs_both_texts_are_changed_and_filters_judge_the_input():
    pairs = [Document('a', PROSE + '\x00', 'short\x00'), Document('b', 'short', PROSE)]
    assert list(STRICT.clean(pairs)) == [Document('a', PROSE, 'short')]


@pytest.mark.parametrize('preset', ['none', 'repair', 'pretraining', 'strict'])
def test_a_config_adopts_what_it_resolved_to(preset: str):
    config = base.get_config()
    config.data.cleaning.preset = preset
    config.data.cleaning.personal = ('emails',)
    config.data.cleaning.similarity = 0.7
    other = base.get_config()
    cleaning.adopt(other, json.loads(json.dumps(cleaning.resolve(config))))
    assert cleaning.resolve(other) == cleaning.resolve(config)


def test_defaults_clean_nothing():
    assert cleaning.resolve(base.get_config()) == {}
    assert not Pipeline({})


@pytest.mark.parametrize(
    ('keys', 'complaint'),
    [
        ({'preset': 'repare'}, "Did you mean 'repair'"),
        ({'personal': ('emails', 'telephones')}, 'telephones'),
        ({'unicode': 'NFD'}, 'NFC'),
        ({'max_symbols': 1.5}, 'at most 1'),
        ({'min_characters': -1}, 'at least 0'),
        ({'similarity': 0.0}, 'above 0'),
        ({'languages': (1,)}, 'tuple'),
    ],
)
def test_mistakes_in_the_config_are_named(keys: dict, complaint: str):
    with pytest.raises(UserError, match=complaint):
        pipeline(**keys)


def test_streams_refuse_to_look_for_duplicates():
    config = base.get_config()
    config.data.mode = 'stream'
    config.data.cleaning.duplicates = 'exact'
    with pytest.raises(UserError, match='duplicates'):
        cleaning.check(config)


@pytest.fixture
def evaluation(tmp_path: Path) -> ConfigDict:
    lines = [
        {'question': PROSE, 'choices': ['Seven words make a short question here.']},
        {'question': CHINESE},
    ]
    path = tmp_path / 'exam.jsonl'
    path.write_text('\n'.join(json.dumps(line) for line in lines))
    config = base.get_config()
    config.data.cleaning.evaluation_files = str(path)
    return config


def test_passages_of_evaluation_texts_are_found_and_named(evaluation: ConfigDict, tmp_path: Path):
    steps = Pipeline(cleaning.resolve(evaluation))
    words = PROSE.split()
    characters = CHINESE.replace('，', '').replace('。', '')
    documents = {
        'thirteen words': f'He wrote: {" ".join(words[20:33]).upper()} and so on.',
        'twelve words': f'He wrote: {" ".join(words[20:32])} and so on.',
        'all of a short text': 'It asked: seven words, make a short question here?',
        'some of a short text': 'It asked: seven words make a short question.',
        '26 characters': f'他写道：{characters[10:36]}等等',
        '25 characters': f'他写道：{characters[10:35]}等等',
        'nothing': 'Nothing of the kind stands in here at all, not even in part of it, I should think.',
    }
    removed: list[dict] = []
    kept = list(steps.clean([Document(*item) for item in documents.items()], Tally(), removed.append))
    assert [each['id'] for each in removed] == ['thirteen words', 'all of a short text', '26 characters']
    assert [each.id for each in kept] == ['twelve words', 'some of a short text', '25 characters', 'nothing']
    assert {each['reason'] for each in removed} == {f'passage of {tmp_path}/exam.jsonl'}
    assert removed[0]['detail'] == ' '.join(words[20:33]).upper().rstrip(',')
    assert isinstance(steps.filters[0].apply(CHINESE), Dropped)


def test_evaluation_files_must_be_there(evaluation: ConfigDict):
    evaluation.data.cleaning.evaluation_files = 'nowhere.jsonl'
    with pytest.raises(UserError, match=r'data\.cleaning\.evaluation_files'):
        Pipeline(cleaning.resolve(evaluation)).filters[0].apply('text')
