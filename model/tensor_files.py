"""Parameters out of and into safetensors files, one tensor at a time.

A parameter whose layers are stacked is made empty, already cut over the mesh, and filled layer by
layer: the host never holds more than one tensor besides what its devices hold.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from configs.errors import UserError
from model.weight_maps import OLD_ENDINGS, WITHOUT_USE, Tensor, WeightMap

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
SHARD_BYTES = 5 << 30  # of the files that `save` writes


class Tensors(Protocol):
    """Tensors under Hugging Face's names, wherever they lie."""

    directory: Path

    def names(self) -> set[str]:
        """Returns the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, of any float dtype."""
        ...


class TensorFiles:
    """The tensors of a directory: model.safetensors, or the files that its index names."""

    def __init__(self, directory: Path):
        self.directory = directory
        index = directory / INDEX
        if index.is_file():
            try:
                self._file_of = dict(json.loads(index.read_text())['weight_map'])
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise UserError(f'{index} is no index of tensors ({error}); download it again.') from error
            names = set(self._file_of.values())
        elif (directory / WEIGHTS).is_file():
            self._file_of, names = {}, {WEIGHTS}
        else:
            others = sorted(path.name for path in directory.glob('*.bin'))
            hint = (
                f'; there are pickles, {", ".join(others)}, which can run code: if you trust them, '
                'convert.py --pickles reads them'
            )
            raise UserError(
                f'{directory} has no {WEIGHTS} and no {INDEX}{hint if others else ""}. '
                'Lathe reads safetensors.'
            )
        self._files: dict[str, Any] = {}
        for name in sorted(names):
            try:
                self._files[name] = safe_open(directory / name, framework='numpy')
            except FileNotFoundError as error:
                raise UserError(f'{directory / name} is missing; {INDEX} names it. Download it.') from error
            except (SafetensorError, OSError) as error:
                raise UserError(f'{directory / name} is damaged ({error}); download it again.') from error
        if not self._file_of:
            self._file_of = dict.fromkeys(self._files[WEIGHTS].keys(), WEIGHTS)
        for key, name in self._file_of.items():
            if key not in set(self._files[name].keys()):
                raise UserError(f'{directory / name} lacks {key}, which {INDEX} places there; download both.')

    def names(self) -> set[str]:
        """Returns the names of all tensors."""
        return set(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading it."""
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in the dtype of the file."""
        return self._files[self._file_of[name]].get_tensor(name)


class Renamed:
    """Tensors under the names that newer versions of transformers give them."""

    def __init__(self, files: Tensors):
        self.directory = files.directory
        self._files = files
        self._names = {_new_name(name): name for name in files.names()}

    def names(self) -> set[str]:
        """Returns the new names of all tensors."""
        return set(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without reading it."""
        return self._files.shape(self._names[name])

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in the dtype of the file."""
        return self._files.read(self._names[name])


def _new_name(name: str) -> str:
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def load(files: Tensors, abstract: Any, weight_map: WeightMap) -> Any:
    """Reads parameters from `files` straight into the shardings of `abstract`, float32.

    Args:
      abstract: nested dict of ShapeDtypeStructs with NamedShardings.
      weight_map: of the architecture.

    Raises:
      UserError: when not every tensor is used, or one is missing or has another shape.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    if any(name.endswith(tuple(OLD_ENDINGS)) for name in files.names()):
        files = Renamed(files)
    whole = any(name.startswith(weight_map.prefix) for name in files.names())
    prefix = '' if whole else weight_map.prefix
    wanted = []
    for path, leaf in leaves:
        tensor = weight_map.tensors[jax.tree_util.keystr(path, simple=True, separator='/')]
        wanted.append((leaf, dataclasses.replace(tensor, name=tensor.name.removeprefix(prefix))))
    _check(files, wanted, weight_map.copies)
    return jax.tree_util.tree_unflatten(treedef, [_load_one(files, *pair) for pair in wanted])


def _names(leaf: jax.ShapeDtypeStruct, tensor: Tensor) -> list[str]:
    """Returns the names of the tensors that make a parameter: one, or one a layer."""
    return [tensor.name.format(layer) for layer in range(leaf.shape[0])] if tensor.stacked else [tensor.name]


def _check(files: Tensors, wanted: list[tuple[jax.ShapeDtypeStruct, Tensor]], copies: dict[str, str]) -> None:
    """Raises UserError that lists what is missing, left over or misshapen."""
    shapes = {
        name: tensor.shape(leaf.shape[1:] if tensor.stacked else leaf.shape)
        for leaf, tensor in wanted
        for name in _names(leaf, tensor)
    }
    there = files.names()
    left_over = {name for name in there - set(shapes) if not re.fullmatch(WITHOUT_USE, name)}
    for copy in left_over & set(copies):
        original = copies[copy]
        if original in there and not np.array_equal(files.read(copy), files.read(original)):
            raise UserError(
                f'{files.directory}: config.json says that {copy} and {original} are one, but they differ; '
                'if they are tables of input and output, set tie_word_embeddings to false there.'
            )
        left_over.remove(copy)
    misshapen = [
        f'{name} is {list(files.shape(name))}, not {list(shape)}'
        for name, shape in shapes.items()
        if name in there and files.shape(name) != shape
    ]
    faults = {'missing': sorted(set(shapes) - there), 'left over': sorted(left_over), 'misshapen': misshapen}
    shown = [
        f'{fault}: {", ".join(names[:5])}{f" and {len(names) - 5} more" if len(names) > 5 else ""}'
        for fault, names in faults.items()
        if names
    ]
    if shown:
        raise UserError(f'{files.directory}: the tensors do not fit config.json; {"; ".join(shown)}.')


def _load_one(files: Tensors, leaf: jax.ShapeDtypeStruct, tensor: Tensor) -> jax.Array:
    if not tensor.stacked:
        return _place(tensor.to_ours(files.read(tensor.name), leaf.shape), leaf.sharding)
    piece_sharding = NamedSharding(leaf.sharding.mesh, PartitionSpec(*leaf.sharding.spec[1:]))
    stacked = jax.jit(functools.partial(jnp.zeros, leaf.shape, jnp.float32), out_shardings=leaf.sharding)()
    names = _names(leaf, tensor)
    with ThreadPoolExecutor(1) as reader:  # reads a layer while the one before it is copied to the devices
        ahead = reader.submit(files.read, names[0])
        for layer in range(len(names)):
            theirs = ahead.result()
            if layer + 1 < len(names):
                ahead = reader.submit(files.read, names[layer + 1])
            piece = _place(tensor.to_ours(theirs, leaf.shape[1:]), piece_sharding)
            stacked = _fill(stacked, piece, layer)
    return stacked


def _place(array: np.ndarray, sharding: Any) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@functools.partial(jax.jit, donate_argnums=0)
def _fill(stacked: jax.Array, piece: jax.Array, layer: int) -> jax.Array:
    return stacked.at[layer].set(piece)


def tensors(params: Any, weight_map: WeightMap) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (their name, their tensor, float32) of all parameters, layer by layer."""
    tensor_of = weight_map.tensors
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}
    groups: dict[str, list[str]] = {}
    for ours in sorted(arrays, key=lambda ours: tensor_of[ours].part):
        groups.setdefault(tensor_of[ours].name, []).append(ours)
    for name, group in groups.items():
        tensor = tensor_of[group[0]]
        if not tensor.stacked:
            yield name, tensor.to_theirs([_whole(arrays[ours]) for ours in group])
            continue
        for layer in range(arrays[group[0]].shape[0]):
            yield name.format(layer), tensor.to_theirs([_whole(arrays[ours][layer]) for ours in group])


def _whole(array: jax.Array) -> np.ndarray:
    """Returns a global array whole, on every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    mesh = array.sharding.mesh  # pyright: ignore[reportAttributeAccessIssue]
    return np.asarray(jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(array))


def save(params: Any, directory: Path, weight_map: WeightMap, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes parameters as safetensors into `directory`: one file, or several with an index."""
    files: list[dict[str, str]] = []
    shard: dict[str, np.ndarray] = {}
    size = total = 0

    def flush() -> None:
        nonlocal shard, size
        save_file(shard, directory / f'part-{len(files)}', metadata={'format': 'pt'})
        files.append(dict.fromkeys(shard, ''))
        shard, size = {}, 0

    for name, array in tensors(params, weight_map):
        if shard and size + array.nbytes > shard_bytes:
            flush()
        shard[name] = array
        size, total = size + array.nbytes, total + array.nbytes
    flush()
    if len(files) == 1:
        shutil.move(directory / 'part-0', directory / WEIGHTS)
        return
    file_of = {}
    for number, names in enumerate(files):
        final = f'model-{number + 1:05d}-of-{len(files):05d}.safetensors'
        shutil.move(directory / f'part-{number}', directory / final)
        file_of |= dict.fromkeys(names, final)
    index = {'metadata': {'total_size': total}, 'weight_map': file_of}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + '\n')
