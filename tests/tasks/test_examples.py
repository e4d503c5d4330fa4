"""Labelled examples come from every format; what is of no use is counted and never learnt."""

import json

import pytest

import tasks
from configs import base
from configs.errors import UserError
from tasks import builtin, classification, examples, question_answering, translation


def read(task, source, config=None, **options):
    tally = examples.Tally()
    return examples.read(task, str(source), config or base.get_config(), tally, **options), tally


def test_formats_give_the_same_examples(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{'text': 'It is "good"', 'label': 'yes'}, {'text': '很差', 'label': 'no'}]
    (tmp_path / 'a.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    (tmp_path / 'a.json').write_text(json.dumps(rows), encoding='utf-8')
    (tmp_path / 'a.csv').write_text('text,label\n"It is ""good""",yes\n很差,no\n', encoding='utf-8')
    (tmp_path / 'a.tsv').write_text('text\tlabel\nIt is "good"\tyes\n很差\tno\n', encoding='utf-8')
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / 'a.parquet')
    for path in sorted(tmp_path.iterdir()):
        found, tally = read(classification, path)
        assert [dict(example.fields) for example in found] == rows, path
        assert not tally.left_out


def test_fields_are_mapped(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"head": "A", "body": "b", "stars": 5}\n', encoding='utf-8')
    config = base.get_config()
    config.task.fields = 'text={head}: {body}, label=stars'
    found, _ = read(classification, path, config)
    assert classification.answer(found[0].fields) == '5'
    assert found[0].fields['text'] == 'A: b'
    config.task.fields = 'tekst=body'
    with pytest.raises(
        UserError, match=r"'tekst=body' must be FIELD=NAME, where FIELD is one of text, label"
    ):
        read(classification, path, config)


def test_what_cannot_be_used_is_counted(tmp_path):
    path = tmp_path / 'a.jsonl'
    good = [json.dumps({'text': f'number {n}', 'label': 'a'}) for n in range(6)]
    bad = ['{"text": "no label"}', '{"text": " ", "label": "a"}', 'no json']
    path.write_bytes('\n'.join([*good, *bad]).encode() + b'\n{"text": "\xff", "label": "a"}\n')
    found, tally = read(classification, path)
    assert len(found) == tally.used == 6
    assert dict(tally.left_out) == {'a field is missing': 1, 'text is empty': 1, 'damaged': 2}
    assert 'left out: 2 × damaged' in '\n'.join(tally.lines('training'))


def test_a_wrong_map_of_fields_is_an_error_that_says_what_there_is(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('opinion,stars\nfine,5\n', encoding='utf-8')
    with pytest.raises(
        UserError, match=r"1 of 1 records cannot be used.*it has 'opinion', 'stars'.*task\.fields"
    ):
        read(classification, path)


def test_squad_files_and_their_kin(tmp_path):
    context = 'The Normans came from Denmark.'
    asked = {'question': 'Whence?', 'answers': [{'text': 'Denmark', 'answer_start': 22}]}
    paragraphs = [
        {'context': context, 'qas': [asked, {'question': 'When?', 'is_impossible': True, 'answers': []}]}
    ]
    (tmp_path / 'a.json').write_text(json.dumps({'data': [{'paragraphs': paragraphs}]}))
    found, _ = read(question_answering, tmp_path / 'a.json')
    assert [question_answering.answer(each.fields) for each in found] == ['Denmark', 'unanswerable']
    assert question_answering.span(found[0].fields) == (22, 29)
    flat = {'question': 'Whence?', 'context': context, 'answers': {'text': ['Denmark'], 'answer_start': [22]}}
    assert question_answering.span(flat) == (22, 29)
    wrong = {'question': '?', 'context': context, 'answers': [{'text': 'Norway', 'answer_start': 3}]}
    assert question_answering.problem(wrong) == 'the answer is not in the context'


def test_lines_side_by_side(tmp_path):
    (tmp_path / 'a.en').write_text('one\ntwo\n')
    (tmp_path / 'a.zh').write_text('一\n二\n', encoding='utf-8')
    found, _ = read(translation, f'{tmp_path / "a.en"}|{tmp_path / "a.zh"}')
    assert [tuple(each.fields.values()) for each in found] == [('one', '一'), ('two', '二')]
    (tmp_path / 'a.zh').write_text('一\n', encoding='utf-8')
    with pytest.raises(UserError, match=r'a\.zh ends before line 2, and the other file does not'):
        read(translation, f'{tmp_path / "a.en"}|{tmp_path / "a.zh"}')


def test_unlabelled_texts_need_no_label_and_keep_one_that_is_there(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"text": "a"}\n{"text": "b", "label": "x"}\n')
    found, _ = read(classification, path, labelled=False)
    assert [dict(each.fields) for each in found] == [{'text': 'a'}, {'text': 'b', 'label': 'x'}]


def test_the_split_does_not_move_as_examples_are_added():
    made = [examples.Example(str(n), {'text': f'text {n}', 'label': 'a'}) for n in range(2000)]
    training, held_out = examples.split(made, classification, 0.2)
    assert 330 < len(held_out) < 470
    fewer = examples.split(made[:500], classification, 0.2)[1]
    assert {e.id for e in fewer} <= {e.id for e in held_out}
    assert not {e.id for e in training} & {e.id for e in held_out}


@pytest.mark.parametrize(
    'name', ['sentiment', 'classification', 'writing', 'translation', 'summarization', 'chat']
)
def test_every_task_has_examples_on_every_machine(name):
    task = tasks.get(name)
    found, tally = read(task, '')
    assert len(found) > 300
    assert sum(tally.left_out.values()) < 0.05 * len(found)
    what, guesses = task.baseline(found, found[:20], _with_labels(task, found))
    assert what
    assert len(guesses) == 20
    assert task.BEST in task.score(guesses, found[:20], _with_labels(task, found))


def _with_labels(task, found):
    config = base.get_config()
    if task.HEAD == 'classes':
        config.task.labels = tuple(sorted({task.answer(each.fields) for each in found}))
    return config


def test_an_unknown_builtin_is_named():
    with pytest.raises(UserError, match='builtin:opinion'):
        list(builtin.records('builtin:opinoins'))
