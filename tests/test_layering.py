"""The rules of the tree, read from its source: imports go one way, files are short and named for their idea.

Each check takes the root of a tree and returns what is wrong with it, one line each. Every check is
tried on a small tree that breaks its rule, so that its silence about this tree means something.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# scripts → planning → training → objectives, tasks → model → parallel; data and configs stand apart.
MAY_IMPORT = {
    'configs': (),
    'data': ('configs',),
    'parallel': ('configs',),
    'model': ('configs', 'parallel'),
    'objectives': ('configs', 'data', 'parallel', 'model'),
    'tasks': ('configs', 'data', 'parallel', 'model'),
    'training': ('configs', 'data', 'parallel', 'model', 'objectives', 'tasks'),
    'planning': ('configs', 'data', 'parallel', 'model', 'objectives', 'tasks', 'training'),
}
NEEDS_NO_JAX = 'data'
JAX = ('jax', 'jaxlib', 'flax', 'optax', 'orbax')
MAX_LINES = {'train.py': 350}
MAX_LINES_ELSEWHERE = 400
NOT_SOURCE = ('prepared', 'runs', 'wandb')  # and names that begin with a dot
EMPTY_NAMES = ('utils', 'helpers', 'misc', 'common')


def sources(root: Path) -> Iterator[Path]:
    """The Python files of the tree, without those of environments, caches and runs."""
    yield from sorted(root.glob('*.py'))
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        if directory.name not in NOT_SOURCE and not directory.name.startswith('.'):
            yield from sorted(directory.rglob('*.py'))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of each import in a file, those inside functions included.

    Relative imports are left out: Python lets none of them leave its own top-level package.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.split('.')[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.split('.')[0]


def wrong_imports(root: Path) -> list[str]:
    """Imports of a higher layer, a script, a benchmark or a test."""
    scripts = {path.stem for path in root.glob('*.py')}
    ours = scripts | MAY_IMPORT.keys() | {'benchmarks', 'tests'}
    wrong = []
    for path in sources(root):
        area = path.relative_to(root).parts[0]
        allowed = {area, *MAY_IMPORT[area]} if area in MAY_IMPORT else MAY_IMPORT.keys()
        if area in ('tests', 'benchmarks'):
            allowed = {area, *allowed}
        wrong += [
            f'{path.relative_to(root)}:{line} imports {package}'
            for line, package in imports(path)
            if package in ours and package not in allowed
        ]
    return wrong


def data_imports_jax(root: Path) -> list[str]:
    """Imports of JAX or of what stands on it, written in data/."""
    return [
        f'{path.relative_to(root)}:{line} imports {package}'
        for path in sorted((root / NEEDS_NO_JAX).rglob('*.py'))
        for line, package in imports(path)
        if package in JAX
    ]


def data_loads_jax(root: Path) -> list[str]:
    """What of JAX is loaded once every module of data/ is imported, by whatever way."""
    files = [path.relative_to(root).with_suffix('') for path in (root / NEEDS_NO_JAX).rglob('*.py')]
    modules = sorted('.'.join(file.parts).removesuffix('.__init__') for file in files)
    program = (
        'import importlib, sys\n'
        f'for name in {modules!r}: importlib.import_module(name)\n'
        f'print(*(name for name in {JAX!r} if name in sys.modules))'
    )
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [f'{NEEDS_NO_JAX} loads {name}' for name in result.stdout.split()]


def files_too_long(root: Path) -> list[str]:
    """Files outside tests/ with more lines than a reader keeps in mind."""
    wrong = []
    for path in sources(root):
        name = str(path.relative_to(root))
        lines = len(path.read_text(encoding='utf-8').splitlines())
        limit = MAX_LINES.get(name, MAX_LINES_ELSEWHERE)
        if lines > limit and not name.startswith('tests/'):
            wrong.append(f'{name} has {lines} lines; split it by idea, {limit} is the limit')
    return wrong


def files_without_an_idea(root: Path) -> list[str]:
    """Files and packages whose name says nothing of what they hold."""
    return [
        f'{path.relative_to(root)} should be named for its idea'
        for path in sources(root)
        if any(part in EMPTY_NAMES for part in path.relative_to(root).with_suffix('').parts)
    ]


BREAKS: list[tuple[Callable[[Path], list[str]], dict[str, str], str]] = [
    (wrong_imports, {'model/a.py': 'from training import state'}, 'model/a.py:1 imports training'),
    (wrong_imports, {'parallel/a.py': 'import model.layers as m'}, 'parallel/a.py:1 imports model'),
    (wrong_imports, {'objectives/a.py': 'from tasks import b'}, 'objectives/a.py:1 imports tasks'),
    (wrong_imports, {'data/a.py': 'def f():\n    import tasks'}, 'data/a.py:2 imports tasks'),
    (wrong_imports, {'configs/a.py': 'from data import x'}, 'configs/a.py:1 imports data'),
    (wrong_imports, {'train.py': '', 'plan.py': 'import train'}, 'plan.py:1 imports train'),
    (wrong_imports, {'train.py': '', 'tests/a.py': 'import train'}, 'tests/a.py:1 imports train'),
    (wrong_imports, {'train.py': 'from benchmarks import a'}, 'train.py:1 imports benchmarks'),
    (wrong_imports, {'training/a.py': 'import planning.step'}, 'training/a.py:1 imports planning'),
    (wrong_imports, {'training/a.py': 'import tests.a'}, 'training/a.py:1 imports tests'),
    (data_imports_jax, {'data/a.py': 'from jax import numpy'}, 'data/a.py:1 imports jax'),
    (data_loads_jax, {'data/a.py': 'import b', 'b.py': 'import jax', 'jax.py': ''}, 'data loads jax'),
    (files_too_long, {'a/b.py': 'x\n' * 401}, 'a/b.py has 401 lines; split it by idea, 400 is the limit'),
    (files_too_long, {'train.py': 'x\n' * 351}, 'train.py has 351 lines; split it by idea, 350 is the limit'),
    (files_without_an_idea, {'model/utils.py': ''}, 'model/utils.py should be named for its idea'),
    (files_without_an_idea, {'data/common/a.py': ''}, 'data/common/a.py should be named for its idea'),
]
CHECKS = list(dict.fromkeys(check for check, _, _ in BREAKS))


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_the_tree_keeps_its_rules(check):
    assert check(ROOT) == []


@pytest.mark.parametrize(
    ('check', 'tree', 'complaint'), BREAKS, ids=[complaint for _, _, complaint in BREAKS]
)
def test_a_check_finds_what_breaks_its_rule(check, tree, complaint, tmp_path):
    write(tmp_path, tree)
    assert check(tmp_path) == [complaint]


def test_a_tree_in_order_passes_every_check(tmp_path):
    write(
        tmp_path,
        {
            'train.py': 'import jax\nfrom training import state',
            'training/state.py': 'from objectives import causal\nfrom data import loader\nfrom . import step',
            'training/step.py': 'x = 0\n' * 400,
            'objectives/causal.py': 'import model.layers',
            'model/layers.py': 'import flax\nfrom parallel.rules import RULES\nfrom .attention import attend',
            'data/loader.py': 'import json\nimport configs',
            'configs/__init__.py': '',
            'tests/test_step.py': 'import training.step\n' * 401,
            'benchmarks/step.py': 'from training import step',
            '.venv/lib/utils.py': 'import train',
        },
    )
    assert [complaint for check in CHECKS for complaint in check(tmp_path)] == []


def write(root: Path, tree: dict[str, str]) -> None:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
