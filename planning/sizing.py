"""How large a model, and how many tokens, for a budget of operations or of hours."""

from __future__ import annotations

import dataclasses
import glob
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from configs import experiment
from configs.errors import UserError
from data.tokenizer import load as load_tokenizer
from model import families, flops
from planning.report import count
from planning.scaling_law import COEFFICIENTS, FLOPS, PUBLISHED, Fit, Law, fit
from planning.topologies import Topology
from training.tracking import read_metrics

WIDTH_PER_LAYER = 128  # as in LLaMA's and Chinchilla's larger models
HEAD_DIM = 128
VOCABULARY = 32_000


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A model and its tokens by one law."""

    source: str
    params: float
    tokens: float
    loss: float

    @property
    def shape(self) -> dict[str, int]:
        """Layers, width and heads of a LLaMA of about so many parameters."""
        return llama_shape(self.params)


def budget(flops: float | None, hours: float | None, topology: Topology | None, mfu: float) -> float:
    """Returns the operations that can be spent: `flops`, or those of a slice in so many hours at an MFU."""
    if flops is not None:
        return flops
    if hours is not None and topology is None:
        raise UserError(f'--hours={hours} needs to know of which devices: add --topology=v5e:16x16, say.')
    if hours is None or topology is None:
        raise UserError(
            'without --config, a plan is made of a budget: --flops=1e21, or --hours=100 --topology=v5e:16x16.'
        )
    return hours * 3600 * topology.num_devices * topology.chip.flops * mfu


def proposals(flops: float, tokens: float | None, fitted: Fit | None = None) -> list[Proposal]:
    """Returns what each law proposes for a budget; with `tokens`, the largest model that can read so many."""
    laws: dict[str, Law] = dict(PUBLISHED) | ({'your runs': fitted.law} if fitted else {})
    made = []
    for source, law in laws.items():
        params, read = law.optimum(flops) if tokens is None else (flops / (FLOPS * tokens), tokens)
        made.append(Proposal(source, params, read, law.loss(params, read)))
    return made


def llama_shape(params: float) -> dict[str, int]:
    """Returns the LLaMA, of width a multiple of its heads' and 128 · layers wide, that is nearest in size."""

    def shape(heads: int) -> dict[str, int]:
        width = heads * HEAD_DIM
        return {
            'num_layers': max(round(width / WIDTH_PER_LAYER), 2),
            'embed_dim': width,
            'num_heads': heads,
            'num_kv_heads': heads,
            'mlp_dim': families.round_up(-(-8 * width // 3), 256),
        }

    def size(shape: dict[str, int]) -> int:
        width = shape['embed_dim']
        block = 4 * width**2 + 3 * width * shape['mlp_dim']
        return shape['num_layers'] * block + 2 * VOCABULARY * width

    return min((shape(heads) for heads in range(1, 257)), key=lambda each: abs(size(each) - params))


def read_runs(pattern: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Returns parameters, tokens and held-out losses of finished runs, and their directories.

    A run is finished if its last step is the one that its config asks for, and was evaluated.

    Args:
      pattern: of directories that train.py made, such as 'runs/*'.
    """
    found: list[tuple[float, float, float, str]] = []
    alike: dict[str, str] = {}  # what decides which losses can be compared, of the first run
    for name in sorted(glob.glob(pattern)):
        directory = Path(name)
        if not (directory / 'metrics.jsonl').exists() or not (directory / 'config.json').exists():
            continue
        config = experiment.load(directory / 'config.json')
        records = read_metrics(directory / 'metrics.jsonl')
        last: dict[str, Any] = {}
        for record in records:
            if record['step'] == config.num_steps:
                last |= record
        if last.get('eval/loss') is None or last.get('tokens_seen') is None:
            continue
        tokenizer = load_tokenizer(directory / 'tokenizer')
        own = {'tokenizer': tokenizer.fingerprint, 'objective': config.objective}
        for key, value in own.items():
            if alike.setdefault(key, value) != value:
                raise UserError(
                    f'--runs={pattern}: {found[0][-1]} and {name} differ in their {key}, and so their losses '
                    'cannot be compared; choose runs of one.'
                )
        model = families.resolve(config, vocab_size=tokenizer.vocab_size, platform='cpu')
        found.append((flops.count_parameters(model), last['tokens_seen'], last['eval/loss'], name))
    if not found:
        raise UserError(
            f'--runs={pattern}: no finished runs with an evaluation at their end are there; give the '
            "directories of train.py, such as --runs='runs/*'."
        )
    params, tokens, losses, names = zip(*found, strict=True)
    return np.array(params, float), np.array(tokens, float), np.array(losses, float), list(names)


def fit_runs(pattern: str) -> tuple[Fit, int]:
    """Returns the law fitted to the runs that `pattern` finds, and their number."""
    params, tokens, losses, names = read_runs(pattern)
    return fit(params, tokens, losses), len(names)


def to_dict(operations: float | None, made: list[Proposal], fitted: Fit | None) -> dict[str, Any]:
    """Returns proposals and fit for JSON."""
    result: dict[str, Any] = {}
    if operations is not None:
        result['flops'] = operations
        result['proposals'] = [dataclasses.asdict(each) | {'shape': each.shape} for each in made]
    if fitted:
        intervals = {
            name: fitted.interval([getattr(law, name) for law in fitted.resampled]) for name in COEFFICIENTS
        }
        result['law'] = dataclasses.asdict(fitted.law) | {'intervals_80': intervals}
    return result


def show(operations: float | None, made: list[Proposal], fitted: Fit | None, runs: int, console: Console):
    """Prints the fit, where there is one, and the proposals."""
    if fitted:
        table = Table(f'Law of {runs} runs: L = E + A/N^α + B/D^β', '', '80 % of resamples', box=None)
        for name in COEFFICIENTS:
            low, high = fitted.interval([getattr(law, name) for law in fitted.resampled])
            table.add_row(name, f'{getattr(fitted.law, name):.4g}', f'{low:.4g} to {high:.4g}')
        if operations is not None:
            for index, name in enumerate(('parameters', 'tokens')):
                low, high = fitted.interval([law.optimum(operations)[index] for law in fitted.resampled])
                table.add_row(
                    f'{name} for the budget',
                    count(fitted.law.optimum(operations)[index]),
                    f'{count(low)} to {count(high)}',
                )
        console.print(table)
    if operations is None:
        return
    console.print(f'\n{operations:.3g} operations', highlight=False)
    table = Table('by', 'parameters', 'tokens', 'tokens a parameter', 'loss', 'layers × width', box=None)
    for each in made:
        shape = each.shape
        table.add_row(
            each.source,
            count(each.params),
            count(each.tokens),
            f'{each.tokens / each.params:.1f}',
            f'{each.loss:.3f}',
            f'{shape["num_layers"]} × {shape["embed_dim"]}',
        )
    console.print(table)
    keys = ' '.join(f'--config.model.{key}={value}' for key, value in made[-1].shape.items())
    console.print(f'The last as a LLaMA: --config=configs/llama.py {keys}', highlight=False, soft_wrap=True)
