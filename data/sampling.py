"""The text a tokenizer is trained on: a sample spread over all the source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from data.permutation import permute
from data.reading import read_clean
from data.sources import Split, is_held_out, is_splittable, list_splits, text_size


def sample(files: list[str], config: ConfigDict) -> Iterator[str]:
    """Yields about tokenizer.sample_bytes of training documents; the same ones every time.

    Plain files give small pieces from random places, others every n-th document.
    Falls back to reading from the beginning when the pieces hold no whole document.
    """
    found = False
    for text in _limited(_choose(files, config), config):
        found = True
        yield text
    if not found:
        yield from _limited(list_splits(files, config), config)


def _choose(files: list[str], config: ConfigDict) -> list[Split]:
    wanted = config.tokenizer.sample_bytes
    piece = min(max(wanted // 128, 1 << 12), 1 << 16)
    plain = list_splits([path for path in files if is_splittable(path)], config, split_bytes=piece)
    packed = [path for path in files if not is_splittable(path)]
    total = sum(split.size for split in plain) + sum(map(text_size, packed))
    share = min(1.0, wanted / total)
    count = round(share * len(plain))
    chosen = np.sort(permute(np.arange(count), len(plain), ('sample',))) if count else []
    every = max(1, round(1 / share))
    return [plain[i] for i in chosen] + [Split(path, parts=every) for path in packed]


def _limited(splits: list[Split], config: ConfigDict) -> Iterator[str]:
    """Yields the training documents of `splits`, up to twice the size asked for."""
    left = 2 * config.tokenizer.sample_bytes
    for split in splits:
        for document in read_clean(split, config):
            if left <= 0:
                return
            if not is_held_out(document.text, config.data.eval_fraction):
                yield '\n'.join(filter(None, (document.text, document.target)))[:left]
                left -= document.size()
