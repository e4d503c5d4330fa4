"""What packing costs, and how fast it is, beside grain's packers on the same documents in one run.

  python -m benchmarks.packing [--source=builtin:python-docs] [--length=256] [--rows=1000]

Needs grain: pip install -r requirements-benchmarks.txt. Measured are documents that are tokenised already,
from lists of ids to rows with segments and positions, in one thread, in the processor's time; and of the
first documents, enough for --rows full rows, the share of padding, and how often a border of a row cuts
one. grain's packers that do not cut are given the pieces that Lathe makes of longer documents than a row,
and as many bins as Lathe fills at a time, or 100.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from configs import base
from data import best_fit, packing, sources
from data.preparation import prepare
from data.tokenizer import Tokenizer
from objectives.segments import find_segments

ROUNDS = 3  # in turns; the median counts
FEW_BINS = 100


def encode(source: str, directory: Path) -> tuple[list[np.ndarray], Tokenizer]:
    """Returns the ids of all documents of `source`, and the tokenizer, which learns from them."""
    config = base.get_config()
    config.data.source, config.data.path = source, str(directory)
    config.data.mode = 'stream'  # the tokenizer alone
    config.tokenizer.vocab_size = 4096
    tokenizer = prepare(config).tokenizer
    splits = sources.list_splits(sources.find_files(config), config)
    texts = [document.text for split in splits for document in sources.read_split(split, config)]
    return tokenizer.encode_documents(texts), tokenizer


def concatenate(documents: list[np.ndarray], width: int, tokenizer: Tokenizer) -> np.ndarray:
    """Returns rows as shards of concatenated text hold them, int32 [N, width]: neighbours share a token."""
    tokens = np.concatenate(documents)
    count = -(-(len(tokens) - 1) // (width - 1))
    padding = np.full(count * (width - 1) + 1 - len(tokens), tokenizer.pad_id, np.int32)
    tokens = np.concatenate([tokens, padding])
    return np.lib.stride_tricks.sliding_window_view(tokens, width)[:: width - 1]


def fit_best(documents: list[np.ndarray], width: int, tokenizer: Tokenizer) -> np.ndarray:
    """Returns rows as prepare.py packs them with data.packing='best_fit', int32 [N, width]."""
    groups, held = [[]], 0
    for document in documents:
        pieces = best_fit.chunks(document, width, tokenizer.bos_id)
        groups[-1] += pieces
        held += sum(map(len, pieces))
        if held >= packing.BEST_FIT_TOKENS:
            groups.append([])
            held = 0
    return np.concatenate([best_fit.pack(group, width, tokenizer.pad_id) for group in groups])


def with_segments(
    pack: Callable[..., np.ndarray], documents: list[np.ndarray], width: int, tokenizer: Tokenizer
) -> np.ndarray:
    """Returns the rows, having made their segments and positions too."""
    rows = pack(documents, width, tokenizer)
    find_segments(rows, tokenizer)
    return rows


def grain_rows(
    packer: str, documents: list[np.ndarray], width: int, tokenizer: Tokenizer, **options: Any
) -> np.ndarray:
    """Returns the rows of one of grain's packers, int32 [N, width]; segments and positions come with them."""
    import grain

    if packer != 'ConcatThenSplit':
        documents = [piece for ids in documents for piece in best_fit.chunks(ids, width, tokenizer.bos_id)]
    one_thread = grain.ReadOptions(
        num_threads=0, prefetch_buffer_size=0
    )  # faster here than its default of 16
    dataset = grain.MapDataset.source([{'ids': ids} for ids in documents]).to_iter_dataset(one_thread)
    kind = getattr(grain.experimental, f'{packer}{"" if packer == "ConcatThenSplit" else "Pack"}IterDataset')
    return np.stack([row['ids'] for row in kind(dataset, length_struct={'ids': width}, **options)])


def count_cuts(rows: np.ndarray, documents: list[np.ndarray], shared: int, bos_id: int) -> int:
    """Returns at how many places documents are cut.

    A row that begins without bos goes on with a document, and so does a bos that is no document's own.
    shared: tokens that a row has in common with the next.
    """
    own = int((rows[:, : rows.shape[1] - shared] == bos_id).sum())
    return int((rows[:, 0] != bos_id).sum()) + own - len(documents)


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--source', default='builtin:python-docs', help='as data.source')
    parser.add_argument('--length', type=int, default=base.get_config().sequence_length)
    parser.add_argument('--rows', type=int, default=1000, help='of which padding and cuts are counted')
    arguments = parser.parse_args()
    width = arguments.length + 1
    with tempfile.TemporaryDirectory() as name:
        documents, tokenizer = encode(arguments.source, Path(name))
    packers: dict[str, Callable[..., np.ndarray]] = {
        'Lathe concatenate': partial(with_segments, concatenate),
        'grain ConcatThenSplit': partial(grain_rows, 'ConcatThenSplit'),
        'Lathe best_fit': partial(with_segments, fit_best),
    }
    for packer in ('BestFit', 'FirstFit'):
        for bins in (packing.BEST_FIT_TOKENS // width, FEW_BINS):
            pack = partial(grain_rows, packer, num_packing_bins=bins, shuffle_bins=False)
            packers[f'grain {packer}, {bins:,} bins'] = pack
    seconds: dict[str, list[float]] = {packer: [] for packer in packers}
    for _ in range(ROUNDS):
        for packer, pack in packers.items():
            started = time.process_time()
            pack(documents, width, tokenizer)
            seconds[packer].append(time.process_time() - started)
    tokens_before = np.cumsum([len(ids) for ids in documents])
    few = documents[: int(np.searchsorted(tokens_before, arguments.rows * width))]
    table = Table('packer', 'M tokens/s', 'rows', 'padding', 'cuts', 'cuts a document')
    for packer, pack in packers.items():
        speed = tokens_before[-1] / float(np.median(seconds[packer])) / 1e6
        rows = pack(few, width, tokenizer)
        cuts = count_cuts(rows, few, int(packer == 'Lathe concatenate'), tokenizer.bos_id)
        padding = float(np.mean(rows == tokenizer.pad_id))
        cells = f'{speed:.2f}', f'{len(rows):,}', f'{padding:.2%}', f'{cuts:,}', f'{cuts / len(few):.3f}'
        table.add_row(packer, *cells)
    console = Console(width=110)
    console.print(
        f'{tokens_before[-1]:,} tokens in {len(documents):,} documents, in rows of {arguments.length}; '
        f'rows, padding and cuts of the first {len(few):,}'
    )
    console.print(table)


if __name__ == '__main__':
    main()
