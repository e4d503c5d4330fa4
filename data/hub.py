"""Hugging Face's hub: datasets as files, `hf:NAME` or `hf:DIR` on this machine, and models as directories.

Datasets are read as the Parquet, Arrow, JSON, CSV or text files that they consist of, one at a time. Of
several splits the one to train on is taken, which is told, as the `datasets` library does, by the
words in the names of files and directories.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from configs.errors import UserError
from data import storage

HUB = 'hf:'
TRAINING = re.compile(r'(?:^|[^a-z])train(?:ing)?(?:[^a-z]|$)')
OTHER_SPLITS = re.compile(r'(?:^|[^a-z])(?:test|testing|eval|evaluation|valid|validation|dev)(?:[^a-z]|$)')


def fetch_model(checkpoint: str, patterns: tuple[str, ...]) -> Path:
    """Returns the local directory of the model `hf:NAME` or `hf:NAME@REVISION`: its files like `patterns`.

    UserError if they cannot be fetched, and are not there from before.
    """
    # Imported here: it takes a second, and only names on the hub need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = checkpoint.removeprefix(HUB).partition('@')
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise UserError(
            f'{checkpoint} could not be fetched from the hub ({type(error).__name__}: {reason}). '
            'Check name, revision and connection, or give a local directory.'
        ) from error


def data_files(name: str, endings: tuple[str, ...]) -> list[str]:
    """Returns the files of the dataset 'hf:NAME', 'hf:NAME@REVISION', 'hf:NAME/some/**.parquet' or 'hf:DIR'.

    UserError if there is none that ends in one of `endings`.
    """
    place = name.removeprefix(HUB)
    if os.path.isdir(place):
        return _saved(Path(place)) or _choose(name, storage.files_below(place), place, endings)
    owner, _, rest = place.partition('/')
    repository, slash, inside = rest.partition('/')
    url = f'hf://datasets/{owner}/{repository}' if repository else f'hf://datasets/{owner}'
    if slash:
        found = storage.matching(f'{url}/{inside}')
        return _known(name, found, endings)
    return _choose(name, storage.files_below(url), url, endings)


def _saved(directory: Path) -> list[str]:
    """Returns the files that Dataset.save_to_disk or DatasetDict.save_to_disk wrote; [] if neither did."""
    splits = _json(directory / 'dataset_dict.json').get('splits', [])
    if splits:
        split = 'train' if 'train' in splits else splits[0]
        return _saved(directory / split)
    state = _json(directory / 'state.json')
    return [str(directory / file['filename']) for file in state.get('_data_files', [])]


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is damaged ({error}). Save the dataset again.') from error


def _choose(name: str, found: list[str], root: str, endings: tuple[str, ...]) -> list[str]:
    known = _known(name, found, endings)
    inside = {path: path.removeprefix(root).lower() for path in known}
    training = [path for path in known if TRAINING.search(inside[path])]
    others = [path for path in known if OTHER_SPLITS.search(inside[path])]
    return training or [path for path in known if path not in others] or known


def _known(name: str, found: list[str], endings: tuple[str, ...]) -> list[str]:
    known = [path for path in found if path.endswith(endings)]
    if not known:
        raise UserError(
            f'data.source={name!r}: no file of that dataset ends in {", ".join(endings)}. Save it as such: '
            "datasets.load_dataset(NAME, split='train').save_to_disk(DIR)."
        )
    return known
