"""The lists of packages agree: what is imported is required, what is required is imported and locked."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.test_layering import MAY_IMPORT, imports

ROOT = Path(__file__).parents[1]
# Those that a user asks for, and is told how to install: model/pickled_tensors.py, training/harness.py.
ON_REQUEST = {'ray', 'torch', 'lm_eval', 'libtpu', 'tqdm'}


def required(name: str) -> set[str]:
    """Packages that a requirements file names itself."""
    lines = (ROOT / name).read_text(encoding='utf-8').splitlines()
    return {normal(re.split(r'[\[<>=~! ]', line)[0]) for line in lines if line[:1].isalpha()}


def normal(name: str) -> str:
    return re.sub('[-_.]+', '-', name).lower()


def test_requirements_are_what_scripts_and_packages_import():
    files = [*ROOT.glob('*.py'), *(path for package in MAY_IMPORT for path in (ROOT / package).rglob('*.py'))]
    ours = MAY_IMPORT.keys() | {path.stem for path in ROOT.glob('*.py')}
    names = (
        {name for path in files for _, name in imports(path)}
        - ours
        - set(sys.stdlib_module_names)
        - ON_REQUEST
    )
    providers = packages_distributions()
    imported = {name: {normal(provider) for provider in providers.get(name, [name])} for name in names}

    wanted = required('requirements.txt')
    assert [name for name in sorted(imported) if not imported[name] & wanted] == []
    assert sorted(wanted - set().union(*imported.values())) == []


def test_every_requirement_is_locked_with_hashes():
    lock = (ROOT / 'requirements.lock').read_text(encoding='utf-8')
    pinned = re.findall(r'^([\w.-]+)==[^\n]*\\\n    --hash=sha256:', lock, re.MULTILINE)
    wanted = required('requirements.txt') | required('requirements-dev.txt')
    assert sorted(wanted - {normal(name) for name in pinned}) == []


def test_the_lock_depends_on_no_host_and_no_path():
    lock = (ROOT / 'requirements.lock').read_text(encoding='utf-8')
    assert re.findall(r'://|^-|@ |file:', lock, re.MULTILINE) == []
