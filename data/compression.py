"""Bytes of plain, gzip and Zstandard files, block by block."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from configs.errors import UserError
from data import storage
from data.damage import Damage

COMPRESSIONS = ('', '.gz', '.zst')
BLOCK = 1 << 18  # bytes held at a time
PACKED_BLOCK = 1 << 17  # compressed bytes read at a time, as Zstandard's own tools do
COMPRESSION_RATIO = 4  # a guess, to give compressed files about their share among plain ones


def is_compressed(path: str) -> bool:
    """Whether `path` can only be read from its beginning."""
    return path.endswith(COMPRESSIONS[1:])


def read_blocks(path: str, start: int = 0) -> Iterator[bytes]:
    """Yields the (decompressed) bytes of `path` from offset `start`; a compressed file has only start 0.

    Raises Damage for a file that is damaged or ends too early, UserError for one that cannot be read at all.
    """
    position = start
    try:
        for block in _blocks(path, start):
            yield block
            position += len(block)
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise Damage(
            f'{path} is damaged or cut short: decompression fails after {position} bytes of text ({error}). '
            'Copy or download it again, or leave it out of data.source.'
        ) from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error


def _blocks(path: str, start: int) -> Iterator[bytes]:
    if not is_compressed(path) and not storage.is_remote(path):
        # Opened anew for each block: hundreds of readers would otherwise keep as many files open.
        while block := _read_at(path, start):
            yield block
            start += len(block)
        return
    with storage.open_file(path) as file:
        if path.endswith('.zst'):
            yield from _zstandard_blocks(file)
        elif not path.endswith('.gz'):
            file.seek(start)
            while block := file.read(BLOCK):
                yield block
        else:
            yield from _gzip_blocks(file)


def _read_at(path: str, start: int) -> bytes:
    with open(path, 'rb') as file:
        file.seek(start)
        return file.read(BLOCK)


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Decompresses one member after another, up to the byte at which the last one breaks off if it does."""
    member, members = None, 0
    while compressed := file.read(PACKED_BLOCK):
        while compressed:
            if member is None:
                compressed = compressed.lstrip(b'\0') if members else compressed  # padding, of tapes
                if not compressed:
                    break
                member, members = zlib.decompressobj(wbits=31), members + 1
            yield member.decompress(compressed, BLOCK)
            compressed = member.unconsumed_tail or member.unused_data
            if member.eof:
                member = None
    if member is not None:
        yield member.flush()
        if not member.eof:
            raise EOFError('the last gzip member is incomplete')


def _zstandard_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Decompresses one frame after another, and insists that the last one is complete."""
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    while compressed := file.read(PACKED_BLOCK):
        while compressed:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(compressed)
            compressed = frame.unused_data
            if frame.eof:
                frame = None
            else:
                break
    if frame is not None:
        raise EOFError('the last Zstandard frame is incomplete')
