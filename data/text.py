"""Plain text and JSON lines: documents in a stream of bytes, from any entry point.

A document follows a separator, and belongs to the split in which the separator's deciding newline
lies (the file's first document to the split that starts at 0). For lines that is the newline
itself. For paragraphs it is the newline before the last blank line, because then a reader that
enters in the middle of a line or of a run of blank lines sees the same separators as one that
reads the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from configs.errors import UserError
from data import records
from data.damage import Damage

BLANK_LINES = re.compile(rb'(?:[ \t\r\f\v]*\n)*')
SPACE = b' \t\r\f\v'
# name: (separator, how far from its end the search backwards for the deciding newline begins)
SEPARATORS = {
    'line': (re.compile(rb'\n'), 0),
    'paragraph': (re.compile(rb'\n(?:[ \t\r\f\v]*\n)+'), 1),
    'file': (re.compile(rb'(?!)'), 0),  # matches nowhere
}


def documents(
    blocks: Iterable[bytes], start: int, end: int | None, separator: str
) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, bytes) of the documents that belong to [start, end) of a file.

    blocks: the file's bytes from `start` on; end: None for the end of the file. Documents of
    white space alone are left out. Memory: one document and one block.
    """
    pattern, back = SEPARATORS[separator]
    owned = start == 0  # whether the document being read is ours
    pieces: list[bytes] = []  # the document so far, when it began in an earlier block
    begin = position = start  # file offsets: of the document, of the buffer's first byte
    carry = b''
    blocks = iter(blocks)
    final = False
    while not final:
        block = next(blocks, None)
        final = block is None
        buffer = carry + (block or b'')
        cut = 0  # the buffer up to here is dealt with
        # A separator that touches the buffer's end may go on in the next block: it waits in `carry`.
        settled = len(buffer) if final else len(buffer.rstrip(SPACE + b'\n'))
        for match in pattern.finditer(buffer):
            if match.end() > settled:
                break
            if owned:
                pieces.append(buffer[cut : match.start()])
                yield from _document(begin, pieces)
            decider = position + buffer.rfind(b'\n', match.start(), match.end() - back)
            if end is not None and decider >= end:
                return
            owned, pieces, cut = True, [], match.end()
            begin = position + cut
        settled = max(settled, cut)
        if owned:
            pieces.append(buffer[cut:settled])
        elif end is not None and position + settled >= end:
            return
        carry = buffer[settled:]
        position += settled
    if owned:
        yield from _document(begin, pieces)


def _document(offset: int, pieces: list[bytes]) -> Iterator[tuple[int, bytes]]:
    content = b''.join(pieces) if len(pieces) != 1 else pieces[0]
    if content and not content.isspace():
        blank = BLANK_LINES.match(content)  # only a file's first document begins with some
        skipped = blank.end() if blank else 0
        yield offset + skipped, content[skipped:].rstrip()


def decode(path: str, offset: int, content: bytes, errors: str = 'strict') -> str:
    """Returns the text of a document at `offset` of `path`; Damage names the byte that is not UTF-8.

    errors: as of bytes.decode; 'surrogateescape' keeps such bytes as surrogates, for cleaning to replace.
    """
    try:
        text = content.decode(errors=errors)
    except UnicodeDecodeError as error:
        raise Damage(
            f'{path}: byte {offset + error.start} is 0x{content[error.start]:02x}, which is not UTF-8 there '
            f'({error.reason}). Lathe reads UTF-8 text: convert the file (iconv -f ENCODING -t UTF-8), leave '
            'it out of data.source, or replace such bytes with --config.data.cleaning.invalid_utf8=True.'
        ) from error
    return text.removeprefix('\ufeff') if offset == 0 else text


def decode_json(
    path: str, offset: int, content: bytes, fields: Mapping[str, str], errors: str = 'strict'
) -> list[str]:
    """Returns the texts in `fields` of the JSON object on a line at `offset` of `path`.

    fields: {config key: the field or template it names}. Raises Damage if one is not there or no text.
    """
    line = decode(path, offset, content, errors)
    where = f'{path}: the line at byte {offset}'
    value = parse_json(where, line)
    if not isinstance(value, dict):
        expected = json.dumps(dict.fromkeys(fields.values(), '…'), ensure_ascii=False)
        raise Damage(f'{where} is not a JSON object but {_shown(line)}. Expected {expected}.')
    texts = records.texts(where, value, fields)
    if (
        errors == 'strict'
        and '\\u' in line
        and any('\ud800' <= character <= '\udfff' for text in texts for character in text)
    ):
        raise Damage(f'{where} holds half of a surrogate pair, which is no character: {_shown(line)}.')
    return texts


def parse_json(where: str, line: str) -> object:
    """Returns what a line of JSON holds; Damage if it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damage(
            f'{where} is not JSON ({error}): {_shown(line)}. A .jsonl file holds one JSON object a line.'
        ) from error


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:60] + '…')


def lone_surrogate(error: UnicodeEncodeError) -> UserError:
    """Returns what to tell the user of a text that UTF-8 cannot spell."""
    return UserError(
        f'the text holds {error.object[error.start]!a}, half of a surrogate pair, at character '
        f'{error.start}; that is no Unicode character. Remove it or join it with its other half.'
    )
