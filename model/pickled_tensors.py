"""PyTorch's own weight files, pytorch_model.bin, for those who ask for them.

A pickle may run any code when it is read. torch.load(weights_only=True) builds nothing but tensors and
plain containers, and refuses the rest; even so, files are read only on request.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError

WEIGHTS, INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'


class PickledTensors:
    """The tensors of pytorch_model.bin, or of the files that its index names; a `tensor_files.Tensors`.

    The files are mapped into memory, so that a tensor is read when it is asked for.
    Raises UserError without PyTorch, and for a file that is missing, damaged, or holds more than tensors.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._tensors: dict[str, Any] = {}
        for name in _files(directory):
            self._tensors |= _read(directory / name)

    def names(self) -> set[str]:
        """Returns the names of all tensors."""
        return set(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading it."""
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, float32."""
        return self._tensors[name].float().numpy()


def _files(directory: Path) -> list[str]:
    index = directory / INDEX
    if not index.is_file():
        if not (directory / WEIGHTS).is_file():
            raise UserError(
                f'{directory} has no {WEIGHTS} and no {INDEX}; leave --pickles out for safetensors.'
            )
        return [WEIGHTS]
    try:
        return sorted(set(json.loads(index.read_text())['weight_map'].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f'{index} is no index of tensors ({error}); download it again.') from error


def _read(path: Path) -> dict[str, Any]:
    try:
        import torch  # no requirement of Lathe's: nothing else needs it
    except ImportError as error:
        raise UserError(
            f'{path} is a pickle, which PyTorch alone can read; pip install torch, or give safetensors.'
        ) from error
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing; download it.') from error
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).split('\n')[0][:200]
        raise UserError(
            f'{path} is damaged, or holds more than tensors, and was not read ({reason}).'
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise UserError(f'{path} holds no tensors by name, as the weights of a model are saved.')
    return tensors
