"""The real training step, compiled for devices that need not be here, and what is known of it then."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import objectives
from configs.errors import UserError
from model import families, word_embeddings
from model.transformer import Transformer
from parallel import compiler, rings
from parallel import mesh as meshes
from planning import collectives, hlo, main_memory, operations
from tasks.framing import Framed
from training import freezing
from training import state as states
from training.optimizer import make_optimizer, make_schedule
from training.step import make_train_step

NO_EXAMPLE = Framed(np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled step. Sizes are bytes of one device, operations those of all."""

    mesh: dict[str, int]
    rings: dict[str, int]  # torus dimensions that each mesh axis lies over
    tokens: int  # of a step
    num_params: int
    compute_dtype: str
    parameters: int
    optimizer: int
    host: int  # of the optimizer's state, in the memory of a device's host
    batch: int
    temporaries: int  # at the peak: activations, gradients, what is gathered
    peak: int
    fits: bool  # by the compiler; a step that does not has only the sizes it said, and no collectives
    model_flops: int
    flops: int  # with what is computed again
    moved: int  # to and from main memory, as compiled
    updated: int  # bytes of main memory that the update reads and writes, once all gradients are known
    least_moved: int  # arguments read, results written, temporaries written and read once
    collectives: tuple[collectives.Traffic, ...]
    unknown_loops: int
    compile_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Step:
        """Reads what `to_dict` gave, also by way of JSON."""
        traffic = tuple(
            collectives.Traffic(**{**each, 'axes': tuple(each['axes'])}) for each in values['collectives']
        )
        return cls(**{**values, 'collectives': traffic})


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Stands for the tokenizer, which shapes depend on only by its size; no text need be prepared."""

    vocab_size: int
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    mask_id: int = 3
    fingerprint: str = ''

    @property
    def sentinel_ids(self) -> np.ndarray:
        """The last thousand ids."""
        return np.arange(self.vocab_size - min(1000, self.vocab_size // 2), self.vocab_size, dtype=np.int32)

    def word_starts(self) -> np.ndarray:
        """Says of each id that it begins a word."""
        return np.ones(self.vocab_size, bool)


def vocabulary(config: ConfigDict) -> Vocabulary:
    """Returns the vocabulary that `config` will have."""
    return Vocabulary(config.model.vocab_size or config.tokenizer.vocab_size)


def model_config(config: ConfigDict, platform: str) -> families.ModelConfig:
    """Returns the resolved model; UserError for what is no Transformer, or cannot be."""
    if config.model.family == word_embeddings.FAMILY:
        raise UserError(f'model.family={config.model.family!r}: plans are made of Transformers alone.')
    return families.resolve(config, vocab_size=vocabulary(config).vocab_size, platform=platform)


def check(config: ConfigDict, devices: Sequence[Any], platform: str) -> Mesh:
    """Returns the mesh of an experiment; UserError, before anything is compiled, if it cannot run there."""
    mesh = meshes.make_mesh(config.mesh, devices)
    meshes.check_batch(mesh, config)
    model = model_config(config, platform)
    families.check_layout(model, mesh.shape)
    objectives.get(config.objective).check(config, model, vocabulary(config))
    return mesh


def compile_step(config: ConfigDict, devices: Sequence[Any], platform: str) -> Step:
    """Compiles the step of `train.py` and reads from it what it needs and does.

    Args:
      config: the experiment; its mesh and batch must go with `devices` (`check`).
      devices: real ones, or descriptions of a topology's.
      platform: theirs: 'cpu', 'gpu' or 'tpu'.
    """
    mesh = check(config, devices, platform)
    model = Transformer(model_config(config, platform))
    objective, tokenizer = objectives.get(config.objective), vocabulary(config)
    optimizer = make_optimizer(config)
    learns = freezing.learnt(config)
    abstract = states.experiment_state(config, model, optimizer, mesh)
    batch = abstract_batch(config, objective, tokenizer, mesh)
    train_step = make_train_step(model, objective, config, optimizer, make_schedule(config))

    started = time.perf_counter()
    with jax.set_mesh(mesh):
        traced = jax.jit(train_step, donate_argnums=0, compiler_options=compiler.options(mesh)).trace(
            abstract, batch
        )
        flops = operations.count(traced.jaxpr.jaxpr)
        lowered = traced.lower(lowering_platforms=(platform,))
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            compiled, needed = None, _needed(str(error))
            if needed is None:
                raise
    seconds = time.perf_counter() - started

    lengths = objective.lengths(config)
    sizes = {
        'parameters': _bytes(abstract.params) + _bytes(abstract.ema_params) + _bytes(abstract.frozen),
        'optimizer': _bytes(abstract.opt_state),
        'batch': _bytes(batch),
    }
    # Parameters, moments and averages are read and written, gradients read.
    rewritten = sum(_bytes(tree) for tree in (abstract.params, abstract.opt_state, abstract.ema_params))
    host = sizes['optimizer'] if config.optimizer.offload else 0
    sizes['optimizer'] -= host
    ring_sizes = {axis: rings.find(mesh, axis) for axis in mesh.axis_names}
    known = {
        'mesh': dict(mesh.shape),
        'rings': {axis: len(sizes) for axis, sizes in ring_sizes.items()},
        'tokens': config.batch_size * (lengths.tokens + lengths.encoder_tokens),
        'num_params': freezing.size(abstract.whole_params()),
        'compute_dtype': model.config.compute_dtype,
        **sizes,
        'host': host,
        'updated': 2 * rewritten + _bytes(abstract.params),
        'model_flops': config.batch_size
        * objectives.train_flops_per_row(objective, config, model.config, tokenizer, learns.has),
        'flops': flops,
        'compile_seconds': round(seconds, 2),
    }
    if compiled is None:
        peak = max(needed or 0, sum(sizes.values()))
        nothing = {'moved': 0, 'least_moved': 0, 'collectives': (), 'unknown_loops': 0}
        return Step(**known, **nothing, peak=peak, temporaries=peak - sum(sizes.values()), fits=False)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    program = hlo.parse(text)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    # Only the TPU's compiler says what is in use at the peak; the others, what they reserve for it.
    # Its figure includes what the host holds.
    in_use = memory.peak_memory_in_bytes - memory.host_argument_size_in_bytes
    peak = in_use if platform == 'tpu' else held + memory.temp_size_in_bytes
    return Step(
        **known,
        temporaries=max(peak - sum(sizes.values()), 0),
        peak=peak,
        fits=True,
        moved=main_memory.traffic(program),
        least_moved=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + 2 * max(peak - memory.argument_size_in_bytes, 0),
        collectives=tuple(collectives.measure(program, mesh.shape, ring_sizes, meshes.num_slices(devices))),
        unknown_loops=program.unknown_loops,
    )


def abstract_batch(
    config: ConfigDict, objective: Any, tokenizer: Any, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and layout of a global batch, from two rows that the objective makes of padding."""
    if config.task.name:
        width = len(objective.lay_out([NO_EXAMPLE], config))
    else:
        width = config.sequence_length + 1
        if objective.lengths(config).encoder_tokens and config.data.target_field:
            width += config.target_length or config.sequence_length
    rows_RT = np.zeros((2, width), np.int32)
    made = objective.make_batch(rows_RT, tokenizer=tokenizer, config=config, seeds_R=np.zeros(2, np.uint64))

    def abstract(array: np.ndarray) -> jax.ShapeDtypeStruct:
        shape = (config.batch_size, *array.shape[1:])
        return jax.ShapeDtypeStruct(shape, array.dtype, sharding=meshes.batch_sharding(mesh, shape))

    return {name: abstract(array) for name, array in made.items()}


def _bytes(tree: Any) -> int:
    """Returns the bytes of a tree of abstract arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _needed(message: str) -> int | None:
    """Returns the bytes that a compiler said it would need when it refused a program as too large."""
    if 'RESOURCE_EXHAUSTED' not in message:
        return None
    used = re.search(r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm', message) or re.search(
        r'\(([\d.]+)([KMGT])\) exceeds available', message
    )
    return int(float(used[1]) * 1024 ** ('KMGT'.index(used[2]) + 1)) if used else 0
