"""Main texts of web pages: HTML files, and the responses in web archives (WARC, ISO 28500).

The text is what Resiliparse takes for the page's own, without menus and the like (Bevendorff et al. 2018).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from data.damage import Damage, Report

HTML_TYPES = ('text/html', 'application/xhtml+xml')


def main_text(content: bytes, encoding: str = '') -> str:
    """Returns the main text of a page, '' if it has none; encoding: what the server said, if it did."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    detected = detect_encoding(content, from_html_meta=True) or 'utf-8'
    try:
        html = bytes_to_str(content, encoding or detected)
    except LookupError:  # servers say what they like
        html = bytes_to_str(content, detected)
    return extract_plain_text(html, main_content=True, alt_texts=False, links=False).strip()


class BlockStream(io.RawIOBase):
    """Blocks of bytes as a file that can be read once.

    Damage of the blocks ends the file and is kept in `damage`: the library that reads it knows none.
    """

    def __init__(self, blocks: Iterable[bytes]):
        self._blocks = iter(blocks)
        self._held = b''
        self.damage: Damage | None = None
        self.tail = b''  # the last bytes that were read

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer) -> int:
        """Fills `buffer` as far as one block goes; 0 at the end."""
        try:
            self._held = self._held or next(self._blocks, b'')
        except Damage as damage:
            self.damage = damage
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self.tail = (self.tail + self._held[max(0, count - 4) : count])[-4:]
        self._held = self._held[count:]
        return count


def archived(path: str, blocks: Iterable[bytes], report: Report) -> Iterator[tuple[int, str]]:
    """Yields (offset in the uncompressed archive, main text) of the HTML pages in a WARC file.

    Told to `report`: a record that ends too early, and what is no record.
    """
    from warcio.archiveiterator import WARCIterator

    stream = BlockStream(blocks)
    records = WARCIterator(stream, check_digests=False)
    number, offset = 0, 0
    while True:
        try:
            record = next(records, None)
            if record is None:
                break
            number += 1
            offset = records.offset
            encoding = _html_encoding(record)
            content = record.content_stream().read() if encoding is not None else b''
            missing = _missing(record)
        except Exception as error:  # the library raises several kinds
            problem = (
                f'{path} is no WARC file, or damaged, behind byte {offset} ({error}). Download it again.'
            )
            report(stream.damage or Damage(problem))
            return
        if missing:
            problem = (
                f'{path} is cut short: the record at byte {offset} lacks {missing} bytes. Download it again.'
            )
            report(stream.damage or Damage(problem))
            return
        if encoding is not None:
            yield offset, main_text(content, encoding)
    if stream.damage:
        report(stream.damage)
    elif not number:
        report(Damage(f'{path} holds no WARC record. Name it otherwise if it is none, or download it again.'))
    elif not stream.tail.endswith((b'\n\r\n', b'\n\n')):  # blank lines end every record
        report(
            Damage(f'{path} is cut short in the head of the record behind byte {offset}. Download it again.')
        )


def _missing(record) -> int:
    """Returns how many bytes of a record are not there, having read the others."""
    if not (record.rec_headers.get_header('Content-Length') or '').isdigit():
        raise ValueError('a record without Content-Length')
    while record.raw_stream.read(1 << 16):
        pass
    return int(record.raw_stream.limit)


def _html_encoding(record) -> str | None:
    """Returns the encoding that the server said, '' if it said none, and None of what is no page."""
    if record.rec_type not in ('response', 'resource'):
        return None
    answer = record.http_headers
    if answer and answer.get_statuscode() != '200':
        return None
    kind, _, parameters = ((answer or record.rec_headers).get_header('Content-Type') or '').partition(';')
    if kind.strip().lower() not in HTML_TYPES:
        return None
    name = parameters.strip().lower()
    return name.removeprefix('charset=').strip('"\' ') if name.startswith('charset=') else ''
