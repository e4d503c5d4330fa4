"""Which meshes, parts of the batch and rematerialisation to try: all sensible ones, best estimates first."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from ml_collections import ConfigDict

from model import flops as model_flops
from model.families import ModelConfig
from parallel.chips import Chip
from planning.estimate import Estimate, Layout, Work, estimate
from planning.step import Vocabulary

ROOM = 0.97  # of the memory: estimates are not exact, and the compiler has the last word
LONG = 16_384  # tokens of a row from which it may be cut over devices
SHORTEST_PART = 1_024  # tokens of a row that one device has at least
MAX_TENSOR = 16  # devices that cut a layer's matrices, which sends activations twice a layer
REMATS = ('none', 'dots', 'full')


def work(config: ConfigDict, model: ModelConfig, objective, tokenizer: Vocabulary) -> Work:
    """Returns what of an experiment is the same in all layouts."""
    from objectives import train_flops_per_row

    return Work(
        model=model,
        num_params=model_flops.count_parameters(model),
        flops=config.batch_size * train_flops_per_row(objective, config, model, tokenizer),
        batch_size=config.batch_size,
        length=objective.lengths(config).tokens,
        gradient_bytes=2 if config.gradient_dtype == 'bfloat16' else 4,
        ema=config.ema_decay > 0,
        offload=config.optimizer.offload,
    )


def layouts(work: Work, devices: int, vocab_blocks: int = 1, slices: int = 1) -> Iterator[Layout]:
    """Yields the layouts of a batch over all of so many devices that divide evenly.

    The batch is the experiment's, for it decides what is learnt; in how many parts it is computed does not.
    """
    model, length = work.model, work.length
    whole = (model.num_heads, model.num_kv_heads, model.mlp_dim, model.vocab_size // vocab_blocks)
    for tensor, context in itertools.product(_divisors(devices), repeat=2):
        if devices % (tensor * context) or tensor > MAX_TENSOR or any(size % tensor for size in whole):
            continue
        if context > 1 and (length < LONG or length % context or length // context < SHORTEST_PART):
            continue
        shards = devices // (tensor * context)
        if work.batch_size % shards:
            continue
        for fsdp, parts in itertools.product(_divisors(shards), _divisors(work.batch_size // shards)):
            if model.embed_dim % fsdp or shards // fsdp % slices:
                continue
            for remat in REMATS:
                yield Layout(shards // fsdp, fsdp, tensor, context, parts, remat, vocab_blocks)


def rank(
    work: Work, chip: Chip, sides: tuple[int, ...], devices: int, vocab_blocks: int = 1, slices: int = 1
) -> list[tuple[Layout, Estimate]]:
    """Returns all layouts with their estimates: those that fit by time, then the others by memory."""
    tried = [
        (layout, estimate(layout, work, chip, sides, slices))
        for layout in layouts(work, devices, vocab_blocks, slices)
    ]
    fitting = [each for each in tried if each[1].memory <= ROOM * chip.memory]
    others = [each for each in tried if each[1].memory > ROOM * chip.memory]
    # Of equal times, the one with fewer parts and less that is computed again.
    fitting.sort(key=lambda each: (*each[1].order, each[0].parts, REMATS.index(each[0].remat)))
    return fitting + sorted(others, key=lambda each: each[1].memory)


def promising(ranked: list[tuple[Layout, Estimate]], count: int) -> list[tuple[Layout, Estimate]]:
    """Returns the first `count`, but no more than two of one mesh, so that estimates may be wrong of one."""
    chosen, of_mesh = [], Counter()
    for layout, estimated in ranked:
        mesh = tuple(layout.mesh.values())
        if of_mesh[mesh] < 2 and len(chosen) < count:
            of_mesh[mesh] += 1
            chosen.append((layout, estimated))
    return chosen


def apply(layout: Layout, config: ConfigDict) -> ConfigDict:
    """Returns the experiment in this layout."""
    changed = config.copy_and_resolve_references()
    for axis, size in layout.mesh.items():
        changed.mesh[axis] = size
    changed.grad_accumulation = layout.parts
    changed.model.remat = layout.remat
    changed.model.vocab_blocks = layout.vocab_blocks
    return changed


def flags(layout: Layout) -> str:
    """Returns the layout as flags of train.py."""
    axes = ' '.join(f'--config.mesh.{axis}={size}' for axis, size in layout.mesh.items())
    blocks = f' --config.model.vocab_blocks={layout.vocab_blocks}' if layout.vocab_blocks > 1 else ''
    return f'{axes} --config.grad_accumulation={layout.parts} --config.model.remat={layout.remat}{blocks}'


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
