from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning import credentials, personal

FOUND = {  # kind: texts in which the whole of what stands in ‹› is replaced
    'emails': [
        'Write to ‹jane.doe+lists@mail.example.com›.',
        '联系邮箱：‹zhang_san@126.com›，谢谢',
        '<‹a@b.co.uk›>',
        'mailto:‹x1@university.edu.cn›',
    ],
    'ip_addresses': [
        'from ‹8.8.8.8›:53',
        'host ‹93.184.216.34›.',
        '地址‹114.114.114.114›是公共的',
        '[‹2606:2800:220:1:248:1893:25c8:1946›]',
    ],
    'card_numbers': [
        'Visa ‹4111 1111 1111 1111›',
        '‹378282246310005›',
        '银行卡号‹6222021234567890128›。',
        '‹5555-5555-5555-4444›,',
    ],
    'us_ssns': ['SSN: ‹536-90-4399›', 'id ‹219 09 1234›.'],
    'china_ids': ['身份证号‹11010519491231002X›。', 'ID ‹440524188001010014›, born 1880'][:1],
    'phones': [
        'call ‹(212) 555-0123›'.replace('555-0123', '736-5000'),
        'Tel. (‹+44 20 7946 0958›), ‹+44 (20) 79460958›',
        '手机‹13812345678›，或‹138-1234-5678›',
        '座机：‹010-62751234›',
        '‹+86 10 6275 1234›',
    ],
    'secrets': [
        'key ‹AKIAIOSFODNN7EXAMPLE›',
        'token=‹ghp_0123456789abcdefABCDEF0123456789abcd›',
        'password = "‹q8W3nZ71kLp0›"',
        '密钥："‹A9f83kLmQ02zX7›"',
        '‹-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----›',
    ],
}
STAYS = {  # look-alikes, between bars
    'emails': ('@decorator|user@localhost|x@W.weight|git@github.com:owner/name.git|a @ b.com|p@2x.png'),
    'ip_addresses': (
        '127.0.0.1|192.168.1.1|version 1.2.3.4|v8.8.8.8|1.2.3.4.5|256.1.1.1|12:30:45|std::vector|'
        'a::b|2001:db8::1|8.8.8'
    ),
    'card_numbers': (
        '4111 1111 1111 1112|1234567812345670|0.4111111111111111|41111111111111111111111|'
        '4111-1111 1111 1111|x4111111111111111'
    ),
    'us_ssns': (
        '000-12-3456|666-12-3456|912-12-3456|123-00-4567|123-45-0000|078-05-1120|123-45-67890|123-45 6789'
    ),
    'china_ids': ('110105194912310021|110105194902310025|990105194912310021|11010519491231002'),
    'phones': (
        '2023-10-12 14:55|123-456-7890|13812345678901|1.3812345678|978-7-111-12345-6|'
        '3.14159265358979|12812345678|000-555-1234|20231012145500'
    ),
    'secrets': (
        'AKIA|password = "correct horse"|token = "aaaaaaaaaaaa1"|sk-learn|hf_hub_download(x)|secret: no'
    ),
}


@pytest.mark.parametrize('kind', FOUND)
def test_personal_data_is_replaced_by_its_kind(kind: str):
    step = personal.KINDS[kind]
    for marked in FOUND[kind]:
        before, expected = marked.replace('‹', '').replace('›', ''), marked
        while '‹' in expected:
            start, end = expected.index('‹'), expected.index('›')
            expected = expected[:start] + step.placeholder + expected[end + 1 :]
        assert step.apply(before) == expected


@pytest.mark.parametrize('kind', STAYS)
def test_what_looks_alike_stays(kind: str):
    for text in STAYS[kind].split('|'):
        assert personal.KINDS[kind].apply(text) == text
        assert personal.KINDS[kind].apply(f'见 {text} 。') == f'见 {text} 。'


def test_checksums_are_those_of_their_standards():
    """Compared, over random numbers, with the definitions: doubled digits; weights and modulus 11."""
    rng = random.Random(0)
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]  # GB 11643-1999, annex
    for _ in range(500):
        digits = [rng.randrange(10) for _ in range(15)]
        total = sum(
            sum(map(int, str(2 * digit))) if at % 2 == 0 else digit for at, digit in enumerate(digits[::-1])
        )
        number = ''.join(map(str, digits)) + str(-total % 10)
        assert personal.luhn(number)
        assert not any(personal.luhn(number[:-1] + str(d)) for d in range(10) if str(d) != number[-1])

        birth = f'{rng.randint(1950, 2005)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}'
        body = f'110105{birth}{rng.randint(0, 999):03}'
        check = '10X98765432'[sum(w * int(d) for w, d in zip(weights, body, strict=True)) % 11]
        assert [last for last in '0123456789X' if personal.is_china_id(body + last)] == [check]


def test_entropy_is_in_bits_a_character():
    assert credentials.entropy('aaaa') == 0
    assert credentials.entropy('abcd') == 2


PIECES = st.sampled_from(
    [
        *(text.replace('‹', '').replace('›', '') for texts in FOUND.values() for text in texts),
        *'0123456789.-+()@: /[]Xab中',
        '[EMAIL]',
        '[PHONE]',
    ]
)


@given(st.lists(PIECES, max_size=12).map(''.join))
def test_replacing_again_changes_nothing(text: str):
    for step in personal.KINDS.values():
        once = step.apply(text)
        assert step.apply(once) == once


@given(st.text())
def test_any_text_is_taken(text: str):
    for step in personal.KINDS.values():
        assert isinstance(step.apply(text), str)
