"""Personal data in text, found by form and checked by what its issuer prescribes, replaced by placeholders.

What only looks alike (a wrong checksum, a version number, part of a longer number) stays.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable

from data.cleaning.credentials import replace_credentials
from data.cleaning.steps import Step

# Letters and digits of ASCII alone bound a match: Chinese text puts no space around numbers.
BEFORE, AFTER = r'(?<![A-Za-z0-9_])', r'(?![A-Za-z0-9_])'
# No part of a longer number.
NOT_DECIMAL, NO_DECIMALS = r'(?<![0-9][.,/-])', r'(?![.,-][0-9])'

TOP_LEVEL = (  # generic ones in use; any two letters are a country's
    'academy|agency|app|art|asia|biz|blog|cloud|club|com|company|design|dev|digital|edu|email|expert|foundation|'
    'global|gov|group|host|info|int|institute|jobs|life|live|media|mil|mobi|museum|name|net|network|news|online|'
    'org|page|press|pro|shop|site|social|solutions|space|store|studio|support|systems|team|tech|technology|'
    'tel|today|tools|top|university|wiki|work|works|world|xyz|zone'
)
EMAIL = re.compile(
    r'(?<![A-Za-z0-9._%+-])[A-Za-z0-9_](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?'
    rf'@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+(?:{TOP_LEVEL}|[A-Za-z]{{2}})'
    r'(?![A-Za-z0-9_@(\[-])(?!\.[A-Za-z0-9])(?!:[A-Za-z0-9~/])',  # git@host.org:path is no address
    re.IGNORECASE,
)
IPV4 = re.compile(
    r'(?<![A-Za-z0-9_.-])(?<!version )(?<!release )(?<!section )(?<!chapter )(?<!§ )(?<!版本 )(?<!版本)'
    r'(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9_-])(?!\.[0-9])',
    re.IGNORECASE,
)
IPV6 = re.compile(
    r'(?<![A-Za-z0-9_:.])[23][0-9a-f]{0,3}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{0,4}(?![A-Za-z0-9_:])',
    re.IGNORECASE,
)
CARD = re.compile(BEFORE + NOT_DECIMAL + r'[2-6](?:[ -]?[0-9]){12,18}' + AFTER + NO_DECIMALS)
CARD_ISSUERS = re.compile(  # ISO/IEC 7812 prefixes, with the lengths that each issuer uses
    r'4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}'
    r'|(?:6011|65\d\d|64[4-9]\d)\d{12}|62\d{14,17}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}'
)
SSN = re.compile(
    BEFORE
    + NOT_DECIMAL
    + r'(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}'
    + AFTER
    + r'(?![.,-][0-9])'
)
NEVER_ISSUED = {'078051120', '219099999'}  # printed in advertisements, and withdrawn for it
CHINA_ID = re.compile(BEFORE + NOT_DECIMAL + r'[1-8][0-9]{16}[0-9Xx]' + AFTER)
PROVINCES = {
    *range(11, 16),
    *range(21, 24),
    *range(31, 38),
    *range(41, 47),
    *range(50, 55),
    *range(61, 66),
    71,
    81,
    82,
    83,
}
SEPARATOR = r'[ .-]?'
PHONES: list[tuple[re.Pattern, str | None]] = [  # form, and the region in whose plan it must be a number
    (re.compile(r'(?<![A-Za-z0-9_+])\+[1-9](?:[ .-]?(?:\([0-9]{1,4}\)|[0-9])){6,14}' + AFTER), None),
    (
        re.compile(
            r'(?<![A-Za-z0-9_.,/-])(?<![0-9] )(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])'
            r'[2-9][0-9]{2}[ .-][0-9]{4}' + AFTER + r'(?![.,/-][0-9])(?! [0-9])'
        ),
        'US',
    ),
    (
        re.compile(
            BEFORE + NOT_DECIMAL + r'(?<!\.)(?:86[ -]?)?1[3-9][0-9](?:[0-9]{8}|[ -][0-9]{4}[ -][0-9]{4})'
            + AFTER + NO_DECIMALS
        ),
        'CN',
    ),
    (
        re.compile(
            BEFORE + NOT_DECIMAL + r'(?:[(（]0[0-9]{2,3}[)）] ?|0[0-9]{2,3}-)[2-9][0-9]{6,7}'
            + AFTER + NO_DECIMALS
        ),
        'CN',
    ),
]  # fmt: skip
MANY_DIGITS = re.compile(r'[0-9](?:[ .()（）-]{0,2}[0-9]){7}')


def replace_emails(text: str) -> str:
    """Replaces e-mail addresses under a known top-level domain."""
    return EMAIL.sub('[EMAIL]', text) if '@' in text else text


def replace_ip_addresses(text: str) -> str:
    """Replaces IPv4 and IPv6 addresses that are reachable from the Internet; private ones name nobody."""

    def replaced(match: re.Match) -> str:
        try:
            public = ipaddress.ip_address(match[0]).is_global
        except ValueError:
            return match[0]
        return '[IP_ADDRESS]' if public else match[0]

    if text.count('.') >= 3:
        text = IPV4.sub(replaced, text)
    return IPV6.sub(replaced, text) if text.count(':') >= 2 else text


def replace_card_numbers(text: str) -> str:
    """Replaces payment card numbers: an issuer's prefix and length, and Luhn's checksum (ISO/IEC 7812-1)."""

    def replaced(match: re.Match) -> str:
        separators = set(re.sub('[0-9]', '', match[0]))
        number = re.sub('[ -]', '', match[0])
        real = len(separators) < 2 and CARD_ISSUERS.fullmatch(number) and luhn(number)
        return '[CARD_NUMBER]' if real else match[0]

    return _with_digits(CARD, replaced, text)


def luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    digits = [int(digit) for digit in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def replace_us_ssns(text: str) -> str:
    """Replaces US social security numbers that can have been issued (area, group and serial not reserved)."""

    def replaced(match: re.Match) -> str:
        return match[0] if re.sub('[ -]', '', match[0]) in NEVER_ISSUED else '[US_SSN]'

    return _with_digits(SSN, replaced, text)


def replace_china_ids(text: str) -> str:
    """Replaces Chinese resident identity numbers (GB 11643-1999): province, birth date, checksum."""

    def replaced(match: re.Match) -> str:
        return '[CHINA_ID]' if is_china_id(match[0]) else match[0]

    return _with_digits(CHINA_ID, replaced, text)


def is_china_id(number: str) -> bool:
    """Whether 18 characters are a resident's number, its last by ISO 7064 MOD 11-2."""
    try:
        born = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17]))
    expected = '10X98765432'[total % 11]
    return int(number[:2]) in PROVINCES and 1900 <= born.year <= 2100 and number[17].upper() == expected


def replace_phones(text: str) -> str:
    """Replaces phone numbers: with a country's code, or of the USA and China without.

    A number counts if it is one in its country's plan (libphonenumber).
    """
    if not MANY_DIGITS.search(text):
        return text
    for pattern, region in PHONES:
        text = pattern.sub(lambda match, region=region: _phone(match, region), text)
    return text


def _phone(match: re.Match, region: str | None) -> str:
    import phonenumbers

    try:
        number = phonenumbers.parse(match[0].replace('（', '(').replace('）', ')'), region)
    except phonenumbers.NumberParseException:
        return match[0]
    return '[PHONE]' if phonenumbers.is_valid_number(number) else match[0]


def _with_digits(pattern: re.Pattern, replaced: Callable[[re.Match], str], text: str) -> str:
    return pattern.sub(replaced, text) if MANY_DIGITS.search(text) else text


def _settled(replace: Callable[[str], str]) -> Callable[[str], str]:
    """Returns what replaces until nothing is found: beside what was replaced another may come to light."""

    def apply(text: str) -> str:
        while (replaced := replace(text)) != text:
            text = replaced
        return text

    return apply


# In this order, so that a longer number is not taken for a shorter one with something around it.
KINDS = {
    name: Step(name, _settled(replace), placeholder)
    for name, replace, placeholder in (
        ('secrets', replace_credentials, '[SECRET]'),
        ('emails', replace_emails, '[EMAIL]'),
        ('china_ids', replace_china_ids, '[CHINA_ID]'),
        ('card_numbers', replace_card_numbers, '[CARD_NUMBER]'),
        ('us_ssns', replace_us_ssns, '[US_SSN]'),
        ('ip_addresses', replace_ip_addresses, '[IP_ADDRESS]'),
        ('phones', replace_phones, '[PHONE]'),
    )
}
