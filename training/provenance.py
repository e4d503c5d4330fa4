"""What, beside config and data, determined a result: versions of code and packages, and the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from configs.command_line import flatten

PACKAGES = (
    *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'ml-collections', 'numpy'),
    *('sentencepiece', 'tokenizers'),
)


def code_version() -> str:
    """Returns git's commit of this code, with '-dirty' when files differ from it; 'unknown' outside git."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--match=']
    root = Path(__file__).parent.parent
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def package_versions() -> dict[str, str]:
    """Returns the version of Python and of each package that results depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {'python': platform.python_version(), **versions}


def identity(config: ConfigDict) -> dict[str, Any]:
    """Returns what all processes of a run must have in common: every key, the code and the packages."""
    packages = {f'package {name}': version for name, version in package_versions().items()}
    return {**flatten(config), 'code_version': code_version(), **packages}


def devices() -> str:
    """Returns for instance '8 × TPU v5 lite in 2 processes'."""
    kind = jax.devices()[0].device_kind
    processes = f' in {jax.process_count()} processes' if jax.process_count() > 1 else ''
    return f'{jax.device_count()} × {kind}{processes}'
