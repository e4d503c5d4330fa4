"""The corpora that every machine has: `builtin:python-docs` and `builtin:docstring-pairs`.

The first is of two kinds of documents, several MB of English in all: the chapters of the language
reference that ship with Python for `help()`, and the docstrings of the standard library and of the
installed packages. The second is of pairs to learn to summarise from: what the docstrings of the
standard library's functions and classes say at length, and the line that they begin with.

Sources are parsed, never imported, so that building a corpus runs no foreign code. Its order depends
only on what is installed.
"""

from __future__ import annotations

import ast
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED_DIRECTORIES = {
    'test',
    'tests',
    'testing',
    'idle_test',
    'site-packages',
    'dist-packages',
    '_vendor',
    '__pycache__',
}
SHORTEST = 64  # characters; shorter docstrings say little but 'Returns the size.'
PLAIN = frozenset(" \n.,'")
LEAST_PLAIN = 0.9  # share of letters and of PLAIN characters; doctests and tables of constants have less
MAX_BYTES = 8_000_000  # enough to learn from, and a few seconds to build however much is installed

SHORTEST_BODY = 100  # characters; of pairs
SUMMARY = range(10, 201)  # characters; of pairs

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documents() -> Iterator[tuple[str, str]]:
    """Yields (id, text) of each document once: reference, standard library, installed packages."""
    seen = set()
    total = 0
    for identifier, text in _all_documents():
        if is_prose(text) and text not in seen:
            seen.add(text)
            yield identifier, text
            total += len(text.encode())
            if total >= MAX_BYTES:
                return


def pairs() -> Iterator[tuple[str, str, str]]:
    """Yields (id, body, summary) of the standard library's functions and classes, each body once.

    The summary is the first line of a docstring, which a blank line sets off from the body (PEP 257).
    """
    root = Path(sysconfig.get_paths()['stdlib'])
    seen = set()
    for path in _python_files(root):
        for identifier, text in _members(_parse(path), path.relative_to(root).as_posix()):
            summary, _, body = text.partition('\n\n')
            body = body.strip()
            is_line = '\n' not in summary and len(summary) in SUMMARY
            if is_line and len(body) >= SHORTEST_BODY and body not in seen:
                seen.add(body)
                yield identifier, body, summary


def functions(*, of_packages: bool = False) -> Iterator[tuple[str, str, str, str]]:
    """Yields (id, kind, name, docstring) of the standard library's modules, classes, functions and methods.

    Each docstring comes once. of_packages: those of the installed packages instead.
    """
    paths = sysconfig.get_paths()
    seen = set()
    for root in dict.fromkeys(paths[key] for key in (('purelib', 'platlib') if of_packages else ('stdlib',))):
        for path in _python_files(Path(root)):
            place = path.relative_to(root).as_posix()
            for kind, node, name in _nodes(_parse(path), 'module', path.stem):
                text = ast.get_docstring(node)
                if text and text not in seen:
                    seen.add(text)
                    yield f'{place}:{getattr(node, "lineno", 1)}', kind, name, text


def _nodes(node: Documented, kind: str, name: str) -> Iterator[tuple[str, Documented, str]]:
    yield kind, node, name
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _nodes(child, 'class', child.name)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield 'method' if kind == 'class' else 'function', child, child.name


def is_prose(text: str) -> bool:
    """Whether a docstring is long enough to say something, and says it in words rather than symbols."""
    plain = sum(character.isalpha() or character in PLAIN for character in text)
    return len(text) >= SHORTEST and plain >= LEAST_PLAIN * len(text)


def _all_documents() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics  # half a megabyte, wanted only here

    for name in sorted(topics):
        yield f'reference/{name}', topics[name].strip()
    paths = sysconfig.get_paths()
    for root in dict.fromkeys(paths[key] for key in ('stdlib', 'purelib', 'platlib')):
        for path in _python_files(Path(root)):
            yield from _documented(_parse(path), path.relative_to(root).as_posix())


def _python_files(root: Path) -> Iterator[Path]:
    """Yields the Python sources below `root` in the order of their names, tests left out."""
    for path in sorted(root.iterdir(), key=lambda entry: entry.name):
        if path.is_dir():
            if path.name not in SKIPPED_DIRECTORIES and not path.name.startswith('test_'):
                yield from _python_files(path)
        elif path.suffix == '.py' and not path.name.startswith('test_'):
            yield path


def _parse(path: Path) -> ast.Module:
    """Returns the syntax tree of a source, an empty one if it cannot be parsed."""
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # foreign sources may hold doubtful escapes
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])  # templates and sources of other Pythons are no English either


def _documented(node: Documented, name: str) -> Iterator[tuple[str, str]]:
    """Yields the docstrings of a module and of its classes and functions, in source order.

    Only their bodies are visited, which is several times faster than `ast.walk`.
    """
    text = ast.get_docstring(node)
    if text:
        yield f'{name}:{getattr(node, "lineno", 1)}', text
    yield from _members(node, name)


def _members(node: Documented, name: str) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, name)
