"""Runs of prepare.py on a text of several parts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def write_topics(path: Path, size: int) -> None:
    """Writes about `size` bytes of text; every 2 MiB are a part."""
    from pydoc_data.topics import topics

    text = '\n\n'.join(topics.values())
    path.write_text((text + '\n\n') * (size // len(text)), encoding='utf-8')


def begin(
    source: Path, place: object, *more: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Starts prepare.py from `source` to `place`."""
    flags = [f'--config.data.source={source}', f'--config.data.path={place}', *more]
    return subprocess.Popen(
        [sys.executable, 'prepare.py', '--config=configs/quickstart.py:smoke', *flags],
        cwd=ROOT, env={**os.environ, **(environment or {})}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def contents(directory: Path) -> dict[str, bytes]:
    """Returns {relative path: bytes} of all files."""
    files = (path for path in directory.rglob('*') if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
