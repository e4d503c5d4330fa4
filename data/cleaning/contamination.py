"""Documents with passages of evaluation texts: n words in a row that stand in one of them.

Brown et al. 2020 (GPT-3), appendix C: 13 words. A text shorter than that counts as a whole, if it has
at least half as many. Of Chinese, 2n characters are taken for n words.

Legend: W words · G n-grams.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from configs import base
from configs.errors import UserError
from data import columns, records, sources, tables, text, word_hashes
from data.cleaning.quality import is_chinese
from data.cleaning.steps import Dropped, Step
from data.compression import read_blocks
from data.damage import Report, reporter

FILTER_BITS = 22
SHOWN = 200  # characters of a passage in the list of what was removed


@dataclass(frozen=True)
class Passages:
    """All n-grams of one length n of the evaluation texts.

    hashes: uint64 [G], sorted; files: int32 [G]; likely: bool [2^FILTER_BITS], whether one
    begins with these bits, which spares most searches.
    """

    n: int
    hashes: np.ndarray
    files: np.ndarray
    likely: np.ndarray


def step(names: str, n: int) -> Step:
    """Returns the filter that drops documents with a passage of n words of the evaluation files `names`."""
    return Step('evaluation', partial(hold_no_passage, names, n))


def hold_no_passage(names: str, n: int, document: str) -> str | Dropped:
    """Drops texts with a passage of the evaluation files; the detail is the first such passage."""
    found = word_hashes.find_words(document)
    files, passages = _index(names, n)
    lengths = [of_length.n for of_length in passages]
    for of_length, hashes_G in zip(
        passages, word_hashes.ngrams_of_lengths(found.hashes, lengths), strict=True
    ):
        likely = np.flatnonzero(of_length.likely[hashes_G >> np.uint64(64 - FILTER_BITS)])
        if not len(likely):
            continue
        places = np.searchsorted(of_length.hashes, hashes_G[likely])
        places[places == len(of_length.hashes)] = 0
        hits = np.flatnonzero(of_length.hashes[places] == hashes_G[likely])
        if len(hits):
            first = int(likely[hits[0]])
            passage = document[found.starts[first] : found.ends[first + of_length.n - 1]]
            return Dropped(f'passage of {files[of_length.files[places[hits[0]]]]}', passage[:SHOWN])
    return document


def evaluation_files(names: str) -> list[str]:
    """Returns the files that data.cleaning.evaluation_files names; UserError if there are none."""
    config = base.get_config()
    try:
        return [path for name in names.split(',') for path in sources.expand(name.strip(), config)]
    except UserError as error:
        raise UserError(str(error).replace('data.source', 'data.cleaning.evaluation_files')) from error


@lru_cache(maxsize=2)
def _index(names: str, n: int) -> tuple[list[str], list[Passages]]:
    """Returns the files, and their passages by length."""
    files = evaluation_files(names)
    hashes: dict[int, list[np.ndarray]] = {}
    owners: dict[int, list[np.ndarray]] = {}
    for number, path in enumerate(files):
        for content in _texts(path):
            found = word_hashes.find_words(content)
            wanted = n * (2 if is_chinese(found.classes) else 1)
            length = min(wanted, len(found))
            if length >= max(1, wanted // 2):
                of_text = word_hashes.ngram_hashes(found.hashes, length)
                hashes.setdefault(length, []).append(of_text)
                owners.setdefault(length, []).append(np.full(len(of_text), number, np.int32))
    if not hashes:
        raise UserError(
            f'data.cleaning.evaluation_files={names!r} hold no text of {max(1, n // 2)} words or more. Lower '
            'data.cleaning.evaluation_ngram, or name other files.'
        )
    passages = []
    for length in sorted(hashes):
        unique, first = np.unique(np.concatenate(hashes[length]), return_index=True)
        likely = np.zeros(1 << FILTER_BITS, bool)
        likely[unique >> np.uint64(64 - FILTER_BITS)] = True
        passages.append(Passages(length, unique, np.concatenate(owners[length])[first], likely))
    return files, passages


def _texts(path: str):
    """Yields every text in a file: paragraphs of plain text, all strings of records."""
    config = base.get_config()
    report: Report = reporter(config)
    kind = sources.file_format(path)
    if kind == '.parquet':
        rows = columns.parquet_rows(path, 0, None, [], report)
    elif kind == '.arrow':
        rows = columns.arrow_rows(path, [], report)
    elif kind in sources.DELIMITERS:
        rows = tables.rows(path, read_blocks(path), sources.DELIMITERS[kind], report)
    elif kind == '.jsonl':
        lines = text.documents(read_blocks(path), 0, None, 'line')
        rows = (
            (at, text.parse_json(f'{path}: the line at byte {at}', text.decode(path, at, c)))
            for at, c in lines
        )
    else:
        splits = sources.list_splits([path], config)
        rows = ((0, document.text) for split in splits for document in sources.read_split(split, config))
    for _, row in rows:
        yield from records.all_texts(row)
