from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning import markup, repair

ANY = st.text(st.characters())  # lone surrogates too


@given(st.binary())
def test_broken_bytes_are_replaced_as_python_replaces_them(content: bytes):
    assert repair.replace_invalid(content.decode(errors='surrogateescape')) == content.decode(
        errors='replace'
    )


@given(ANY)
def test_repaired_text_can_always_be_written(text: str):
    assert repair.replace_invalid(text).encode().decode() == repair.replace_invalid(text)


@given(ANY)
def test_controls_go_and_all_else_stays(text: str):
    unwanted = {
        character
        for character in text
        if (unicodedata.category(character) == 'Cc' and character not in '\t\n\r\x0b\x0c\x85')
        or character in '\ufffe\uffff'
        or 0xFDD0 <= ord(character) <= 0xFDEF
        or character == '\ufeff'
    }  # fmt: skip
    assert repair.remove_controls(text) == ''.join(c for c in text if c not in unwanted)


def test_full_width_forms_become_narrow_with_nfkc_alone():
    text = 'ＡＢＣ１２３，ｶﾞ，e\u0301'
    assert repair.normalize('NFC', text) == 'ＡＢＣ１２３，ｶﾞ，é'
    assert repair.normalize('NFKC', text) == 'ABC123,ガ,é'


def test_traditional_characters_become_simplified_ones_by_words():
    assert repair.simplify('漢字與語言，乾淨的頭髮，發展') == '汉字与语言，干净的头发，发展'
    assert repair.simplify('简体字，and English') == '简体字，and English'


@pytest.mark.parametrize(
    ('text', 'tidy'),
    [
        ('a\r\nb\rc\u2028d', 'a\nb\nc\nd'),
        ('a\xa0b\u3000c\u2003d', 'a b c d'),
        ('\n\n  a  \t\n\n\n\n    b\n\n', '  a\n\n    b'),
        ('    if x:\n        y = 1', '    if x:\n        y = 1'),
        (' \n \n', ''),
    ],
)
def test_white_space_is_of_one_kind(text: str, tidy: str):
    assert repair.tidy_white_space(text) == tidy


@pytest.mark.parametrize(
    ('text', 'clean'),
    [
        ('<p>One &amp; two</p><br/>three', '\nOne & two\n\nthree'),
        ('a <!-- hidden\n --> b<script type="x">if (a<b) {}</script>', 'a  b'),
        ('<div class="x" id=y>中文&nbsp;文字</DIV>', '\n中文\xa0文字\n'),
        ('&amp;lt;b&amp;gt;bold&amp;lt;/b&amp;gt;', 'bold'),
        # Look-alikes that stay
        ('if a < b and c > d: x = a & b', 'if a < b and c > d: x = a & b'),
        ('List<String> and vector<int>, <stdio.h>, a<b>c', 'List<String> and vector<int>, <stdio.h>, ac'),
        ('R&D; AT&T, x &y', 'R&D; AT&T, x &y'),
    ],
)
def test_remnants_of_html_go_and_comparisons_stay(text: str, clean: str):
    assert markup.remove_markup(text) == clean


@given(st.text(st.sampled_from('a<>/&;"=bamplt#39 \n!-'), max_size=60))
def test_steps_of_repair_change_nothing_the_second_time(text: str):
    for step in (markup.remove_markup, repair.tidy_white_space, repair.remove_controls, repair.simplify):
        assert step(step(text)) == step(text)


@given(ANY)
def test_any_text_is_left_alone_the_second_time(text: str):
    for step in (
        repair.replace_invalid,
        repair.remove_controls,
        repair.tidy_white_space,
        markup.remove_markup,
        lambda text: repair.normalize('NFKC', text),
    ):
        assert step(step(text)) == step(text)


@given(st.text(alphabet='漢字與語言乾淨頭髮發展后後里裡面麵只隻征徵台臺云雲著着'))
def test_simplified_text_stays_as_it_is(text: str):
    assert repair.simplify(repair.simplify(text)) == repair.simplify(text)


@given(st.text())
def test_references_mean_what_html_says(text: str):
    plain = text.replace('<', '').replace('&', '')
    assert markup.remove_markup(html.escape(plain)) == plain
