"""A document: a text, for pairs its target, and the name by which it is found again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text, for pairs its target, and where it stands: 'path:offset', in bytes of the uncompressed file.

    In Parquet and Arrow files the offset is the number of the row.
    """

    id: str
    text: str
    target: str = ''

    def __len__(self) -> int:
        """Returns its length in characters."""
        return len(self.text) + len(self.target)

    def size(self) -> int:
        """Returns its length in bytes of UTF-8."""
        return byte_size(self.text) + (byte_size(self.target) if self.target else 0)


def byte_size(text: str) -> int:
    """Returns the bytes that a text has in its file: bytes that are not UTF-8 are lone surrogates in it."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode('utf-8', 'surrogateescape'))
    except UnicodeEncodeError:  # a surrogate that a JSON file spelt out
        return len(text.encode('utf-8', 'surrogatepass'))
