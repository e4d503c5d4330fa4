"""What models read of examples: answers alone are learnt, long texts are cropped, spans point at answers."""

import numpy as np
import pytest

from configs import base
from configs.errors import UserError
from data import sentencepiece_tokenizer
from data.tokenizer import load
from objectives import classification as classes_objective
from objectives import completion, seq2seq, task_rows
from objectives import span as span_objective
from tasks import chat, classification, framing, question_answering, summarization
from tasks.framing import Framer, Room, Unfit
from tests.data import tiny_tokenizers

TEXT = 'The Normans came from Denmark to the north of France. 他们说法语。 '


@pytest.fixture(scope='module')
def tokenizer():
    return sentencepiece_tokenizer.train([TEXT] * 20, kind='bpe', vocab_size=320)


def framer(task, tokenizer, structure, inputs=64, answer=16, **keys):
    config = base.get_config()
    config.sequence_length = inputs
    for key, value in keys.items():
        config.task[key] = value
    return Framer(task, tokenizer, structure, config, Room(inputs, answer))


def test_a_decoder_learns_the_answer_and_its_end_alone(tokenizer):
    fields = {'text': 'The Normans came from Denmark.', 'summary': 'Normans from Denmark'}
    framed = framer(summarization, tokenizer, 'decoder').dialogue(fields)
    learnt = framed.tokens_T[framed.marks_T == 1]
    assert tokenizer.decode(learnt) == 'Normans from Denmark'
    assert learnt[-1] == tokenizer.eos_id
    assert (
        tokenizer.decode(framed.tokens_T[framed.marks_T == 0])
        == 'The Normans came from Denmark.\n\nSummary:\n'
    )
    batch = completion.make_batch(completion.lay_out([framed, framed], _config(64))[None])
    targets = batch['targets_BL'][0][batch['weights_BL'][0] == 1]
    assert targets.tolist() == [*learnt, *learnt]
    assert batch['segments_BL'].max() == 2


def _config(length):
    config = base.get_config()
    config.sequence_length = length
    return config


def test_a_long_text_is_cropped_and_the_rest_of_the_question_stays(tokenizer):
    fields = {'text': TEXT * 20, 'summary': 'Normans'}
    framed = framer(summarization, tokenizer, 'decoder').dialogue(fields)
    assert framed.cropped
    assert 50 <= len(framed.tokens_T) <= 64
    asked = tokenizer.decode(framed.tokens_T[framed.marks_T == 0])
    assert asked.endswith('\n\nSummary:\n')
    assert TEXT.startswith(asked[:40])
    with pytest.raises(Unfit, match='the answer is longer than the 4 tokens'):
        framer(summarization, tokenizer, 'decoder', answer=4).dialogue({'text': 'a', 'summary': TEXT})


def test_an_encoder_decoder_reads_the_question_and_answers(tokenizer):
    framed = framer(summarization, tokenizer, 'encoder_decoder').pair(
        {'text': 'from France', 'summary': 'France'}
    )
    row = seq2seq.lay_out([framed, framed], _config(64))
    batch = seq2seq.make_batch(row[None], tokenizer=tokenizer, config=_config(64))
    inputs = batch['encoder_tokens_BS'][0][batch['encoder_segments_BS'][0] == 2]
    assert tokenizer.decode(inputs) == 'from France\n\nSummary:'
    assert tokenizer.decode(batch['targets_BL'][0][batch['segments_BL'][0] == 2]) == 'France'


def test_a_chat_is_learnt_reply_by_reply_as_the_template_shows_it(tmp_path):
    tokenizer = load(tiny_tokenizers.gpt2(tmp_path))
    tokenizer.chat_template = (
        '{% for m in messages %}[{{ m.role }}] {{ m.content }}<|endoftext|>{% endfor %}[assistant] '
    )
    said = [('user', 'the fox'), ('assistant', 'jumps'), ('user', 'over'), ('assistant', 'the dog')]
    fields = {'messages': [{'role': role, 'content': text} for role, text in said]}
    framed = framer(chat, tokenizer, 'decoder', inputs=256).dialogue(fields)
    learnt = framed.tokens_T[framed.marks_T == 1]
    assert tokenizer.decode(learnt) == 'jumpsthe dog'
    assert (learnt == tokenizer.eos_id).sum() == 2
    asked, _ = framer(chat, tokenizer, 'decoder', inputs=256).question(fields, 256)
    assert asked.tolist() == framed.tokens_T[: len(asked)].tolist()  # what is written follows what was learnt
    assert framed.marks_T[len(asked)] == 1
    assert framed.marks_T[len(asked) :].all()


def test_texts_side_by_side_keep_their_classes(tokenizer):
    made = framer(classification, tokenizer, 'encoder', labels=('a', 'b'))
    framed = [
        made.classed({'text': text, 'label': label}) for text, label in (('Denmark', 'b'), ('France', 'a'))
    ]
    config = made.config
    batch = classes_objective.make_batch(classes_objective.lay_out(framed, config)[None], config=config)
    starts = batch['first_at_BF'][0][:2]
    assert (batch['tokens_BL'][0][starts] == tokenizer.bos_id).all()
    assert (batch['positions_BL'][0][starts] == 0).all()
    assert batch['answers_BFA'][0, :3, 0].tolist() == [2, 1, 0]
    assert batch['weights_BF'][0, :3].tolist() == [1, 1, 0]
    with pytest.raises(Unfit, match=r"the label 'c' is none of task\.labels"):
        made.classed({'text': 'x', 'label': 'c'})


def test_several_classes_of_one_text_are_all_learnt(tokenizer):
    made = framer(classification, tokenizer, 'encoder', labels=('a', 'b', 'c'), multi_label=True)
    assert made.classed({'text': 'x', 'label': ['c', 'a']}).answer.tolist() == [2, 1, 2]
    assert made.classed({'text': 'x', 'label': 'a; c'}).answer.tolist() == [2, 1, 2]


@pytest.mark.parametrize('wanted', ['Denmark', '他们'])
def test_windows_cover_a_long_context_and_point_at_the_answer(tokenizer, wanted):
    context = 'north of France. ' * 8 + TEXT + 'north of France. ' * 8
    fields = {
        'question': 'Whence?',
        'context': context,
        'answers': [{'text': wanted, 'answer_start': context.index(wanted)}],
    }
    made = framer(question_answering, tokenizer, 'encoder')
    windows = list(made.windows(fields))
    marked = list(made.marked_windows(fields))
    assert len(windows) > 3
    covered = set()
    found = 0
    for window, (_, _, spans_T2) in zip(windows, marked, strict=True):
        assert len(window.tokens_T) <= 64
        covered |= {n for start, end in spans_T2 for n in range(start, end)}
        first, last = window.answer - 1
        if first:
            found += 1
            text = context[spans_T2[first, 0] : spans_T2[last, 1]]
            assert wanted in text
            assert len(text) <= len(wanted) + 8  # whole tokens
        row = span_objective.lay_out([window], made.config)
        batch = span_objective.make_batch(row[None], config=made.config)
        assert (batch['starts_B'][0], batch['ends_B'][0], batch['weights_B'][0]) == (first, last, 1)
    assert covered == set(range(len(context)))
    assert found >= 1
    unanswerable = list(made.windows({**fields, 'answers': []}))
    assert all(window.answer.tolist() == [1, 1] for window in unanswerable)


def test_rows_hold_every_example_once_and_never_more_than_fits():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, 500)
    made = [framing.Framed(np.zeros(size, np.int32), np.zeros(size, np.int32)) for size in sizes]
    rows = list(task_rows.pack(enumerate(made), task_rows.Row(64, 0, 8)))
    assert sorted(number for row in rows for number in row) == list(range(500))
    assert all(sizes[row].sum() <= 64 and len(row) <= 8 for row in rows)
    assert sizes.sum() > 0.9 * 64 * len(rows)


def test_a_prompt_must_hold_the_fields_of_the_question():
    config = base.get_config()
    config.task.prompt = 'Answer: {question}'
    with pytest.raises(UserError, match=r'must hold \{question\} \{context\}, and no other field'):
        framing.check_prompt(question_answering, config)
    with pytest.raises(UserError, match='is done by models that write'):
        framing.objective(summarization, 'summarization', 'encoder')
