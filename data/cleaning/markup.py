"""Remnants of HTML in text: comments, scripts, tags and character references."""

from __future__ import annotations

import html
import re

ELEMENTS = (
    'abbr|acronym|address|article|aside|audio|a|base|big|blockquote|body|br|button|b|caption|center|cite|code|'
    'colgroup|col|dd|del|details|dfn|div|dl|dt|embed|em|fieldset|figcaption|figure|font|footer|form|frame|h[1-6]|'
    'header|head|hr|html|iframe|img|input|ins|i|kbd|label|legend|link|li|main|map|mark|meta|nav|noscript|object|'
    'ol|optgroup|option|param|pre|p|q|samp|script|section|select|small|source|span|strike|strong|style|sub|'
    'summary|sup|svg|s|table|tbody|td|template|textarea|tfoot|thead|th|time|title|tr|tt|ul|u|var|video|wbr'
)
BLOCKS = (
    'address|article|aside|blockquote|body|br|center|dd|div|dl|dt|figure|footer|form|h[1-6]|head|header|hr|'
    'html|li|main|nav|ol|p|pre|section|table|tbody|tfoot|thead|title|tr|ul'
)
HIDDEN = re.compile(r'<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>', re.DOTALL | re.IGNORECASE)
# A tag has its attributes spelt out (name=value), so that 'a < b and c > d' is none.
TAG = r'</?(?:{})(?:\s+[\w:-]+(?:\s*=\s*(?:"[^"]*"|\'[^\']*\'|[^\s"\'<>]+))?)*\s*/?>'
BLOCK_TAG = re.compile(TAG.format(BLOCKS), re.IGNORECASE)
ANY_TAG = re.compile(TAG.format(ELEMENTS), re.IGNORECASE)
REFERENCE = re.compile(r'&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});')


def remove_markup(text: str) -> str:
    """Removes comments, scripts, styles and tags of HTML, and resolves references such as '&amp;'.

    A tag of a block becomes the end of a line. What is resolved may be markup in its turn, so it goes
    on until nothing is left; each round makes the text shorter or leaves it.
    """
    while True:
        before = text
        if '<' in text:
            text = HIDDEN.sub('', text)
            text = ANY_TAG.sub('', BLOCK_TAG.sub('\n', text))
        if '&' in text:
            text = REFERENCE.sub(_resolve, text)
        if text == before:
            return text


def _resolve(match: re.Match) -> str:
    return html.unescape(match[0])
