"""Files where they are: on this machine, or behind a URL that fsspec knows (gs://, s3://, https://, hf://)."""

from __future__ import annotations

import glob
import io
import os
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from configs.errors import UserError

Answer = TypeVar('Answer')
CACHE = {'block_size': 8 << 20, 'cache_type': 'readahead'}  # bytes that are asked for at a time


def is_remote(path: str) -> bool:
    """Whether `path` is a URL."""
    return '://' in path


def open_file(path: str) -> BinaryIO:
    """Opens a file to read its bytes; OSError, or UserError for a URL that cannot be followed."""
    if not is_remote(path):
        return open(path, 'rb')
    system, inside = _system(path)
    return io.BufferedReader(RemoteFile(path, _follow(path, lambda: system.open(inside, 'rb', **CACHE))))


class RemoteFile(io.RawIOBase):
    """A file behind a URL, whose errors are UserErrors whatever the library that follows it raises."""

    def __init__(self, path: str, file: BinaryIO):
        self._path, self._file = path, file

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer) -> int:
        """Fills `buffer` as far as there are bytes, and returns how many."""
        content = _follow(self._path, lambda: self._file.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


@lru_cache(maxsize=1 << 16)
def _remote_size(path: str) -> int:
    system, inside = _system(path)
    size = _follow(path, lambda: system.size(inside))
    if size is None:
        raise UserError(f'{path}: the server does not say how large it is. Download it, and name the copy.')
    return int(size)


def size(path: str) -> int:
    """Returns the bytes of a file."""
    return _remote_size(path) if is_remote(path) else os.path.getsize(path)


def is_file(path: str) -> bool:
    """Whether there is a file at `path`."""
    if not is_remote(path):
        return os.path.isfile(path)
    system, inside = _system(path)
    return bool(_follow(path, lambda: system.isfile(inside)))


def is_directory(path: str) -> bool:
    """Whether there is a directory at `path`."""
    if not is_remote(path):
        return os.path.isdir(path)
    system, inside = _system(path)
    return bool(_follow(path, lambda: system.isdir(inside)))


def files_below(directory: str) -> list[str]:
    """Returns all files in a directory and in those below it, sorted."""
    if not is_remote(directory):
        return sorted(str(path) for path in Path(directory).rglob('*') if path.is_file())
    system, inside = _system(directory)
    return sorted(system.unstrip_protocol(path) for path in _follow(directory, lambda: system.find(inside)))


def matching(pattern: str) -> list[str]:
    """Returns the files that match a pattern, in which '**' stands for any directories, sorted."""
    if not is_remote(pattern):
        return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    system, inside = _system(pattern)
    found = _follow(pattern, lambda: system.glob(inside))
    return sorted(system.unstrip_protocol(path) for path in found if system.isfile(path))


def names_in(directory: str) -> list[str]:
    """Returns the names in a directory, sorted; those of directories end in '/'; [] without it."""
    if not is_remote(directory):
        there = os.scandir(directory) if os.path.isdir(directory) else ()
        return sorted(each.name + '/' * each.is_dir() for each in there)
    system, inside = _system(directory)
    system.invalidate_cache()  # of listings, which other processes have made old
    found = _follow_if_there(directory, lambda: system.ls(inside, detail=True)) or []
    names = (
        each['name'].rstrip('/').rpartition('/')[2] + '/' * (each['type'] == 'directory') for each in found
    )
    return sorted(names)


def read(path: str) -> bytes | None:
    """Returns the content of a file behind a URL, None if it is not there."""
    system, inside = _system(path)
    return _follow_if_there(path, lambda: system.cat_file(inside))


def download(directory: str, copies: Mapping[str, Path]) -> None:
    """Copies files in a directory behind a URL to this machine, many at a time; copies: {name: where to}."""
    system, inside = _system(directory)
    there, here = [f'{inside}/{name}' for name in copies], [str(path) for path in copies.values()]
    if here:
        _follow(directory, lambda: system.get(there, here))


def upload(directory: str, copies: Mapping[str, Path]) -> None:
    """Copies files of this machine into a directory behind a URL, as download does in the other direction."""
    system, inside = _system(directory)
    there, here = [f'{inside}/{name}' for name in copies], [str(path) for path in copies.values()]
    if here:
        _follow(directory, lambda: system.put(here, there), 'written')


def remove(path: str) -> None:
    """Removes a file, or a directory with all that is in it, if it is there."""
    if not is_remote(path):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink(missing_ok=True)
        return
    system, inside = _system(path)
    system.invalidate_cache()
    if _follow(path, lambda: system.exists(inside)):
        _follow(path, lambda: system.rm(inside, recursive=True), 'removed')


def _system(path: str):
    """Returns fsspec's file system of a URL, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UserError(
            f'{path} cannot be followed: {error}. Install the package that fsspec needs for it (gcsfs for '
            'gs://, s3fs for s3://, aiohttp for https://), or mend the URL.'
        ) from error


def _follow_if_there(path: str, ask: Callable[[], Answer]) -> Answer | None:
    def ask_or_none() -> Answer | None:
        try:
            return ask()
        except FileNotFoundError:
            return None

    return _follow(path, ask_or_none)


def _follow(path: str, ask: Callable[[], Answer], what: str = 'read') -> Answer:
    """Returns ask(), which reads `path`, or whatever `what` says is done; its errors become UserErrors."""
    try:
        return ask()
    except FileNotFoundError as error:
        raise UserError(f'{path}: there is no such file or bucket. Mend the URL.') from error
    except Exception as error:  # each file system raises its own
        name = type(error).__name__
        todo = 'Try again later.'
        if isinstance(error, PermissionError) or 'Credentials' in name:
            todo = (
                'Give credentials that allow it (s3://: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; gs://: '
                'GOOGLE_APPLICATION_CREDENTIALS).'
            )
        raise UserError(f'{path} cannot be {what}: {name}: {error}. {todo}') from error
