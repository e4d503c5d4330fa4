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
        self._held = self._held[count:]
        return count


def archived(path: str, blocks: Iterable[bytes], report: Report) -> Iterator[tuple[int, str]]:
    """Yields (offset in the uncompressed archive, main text) of the HTML pages in a WARC file.

    Told to `report`: a record that ends too early, and an archive in which none begins.
    """
    from fastwarc import ArchiveIterator, WarcRecordType

    stream = BlockStream(blocks)
    kinds = WarcRecordType.response | WarcRecordType.resource
    records: Iterator | None = None
    number, offset = 0, 0
    while True:
        try:
            records = records or iter(ArchiveIterator(io.BufferedReader(stream), parse_http=True))
            record = next(records, None)
        except Exception as error:  # the library raises several kinds
            problem = (
                f'{path} is no WARC file, or damaged, behind byte {offset} ({error}). Download it again.'
            )
            report(stream.damage or Damage(problem))
            return
        if record is None:
            break
        number += 1
        offset = record.stream_pos
        length = record.content_length
        content = record.reader.read()
        if len(content) < length:
            report(
                stream.damage
                or Damage(
                    f'{path} is cut short: the record at byte {offset} has {len(content)} of {length} bytes. '
                    'Download it again.'
                )
            )
            return
        if record.record_type & kinds and (encoding := _html_encoding(record)) is not None:
            yield offset, main_text(content, encoding)
    if stream.damage:
        report(stream.damage)
    elif not number:
        report(Damage(f'{path} holds no WARC record. Name it otherwise if it is none, or download it again.'))


def _html_encoding(record) -> str | None:
    """Returns the encoding that the server said, '' if it said none, and None of what is no page."""
    headers = record.http_headers if record.is_http else record.headers
    if record.is_http and record.http_headers.status_code != 200:
        return None
    kind, _, parameters = (headers.get('Content-Type') or '').partition(';')
    if kind.strip().lower() not in HTML_TYPES:
        return None
    name = parameters.strip().lower()
    return name.removeprefix('charset=').strip('"\' ') if name.startswith('charset=') else ''
