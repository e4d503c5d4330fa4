"""Documents as they are learnt from: read from the source and cleaned as the config says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache

from ml_collections import ConfigDict

from configs import cleaning
from data.cleaning.pipeline import Pipeline
from data.cleaning.tally import Tally
from data.documents import Document
from data.sources import Split, read_split


def read_clean(
    split: Split,
    config: ConfigDict,
    tally: Tally | None = None,
    removed: Callable[[dict], None] | None = None,
) -> Iterator[Document]:
    """Yields the documents of `split` that are kept, clean, in the order of the file.

    tally: counts what was read and what became of it. removed: is called with {id, step, reason, detail}
    of each document that is dropped. Duplicates are not found here: they need all documents.
    """
    documents = read_split(split, config, tally.damage if tally else None)
    pipeline = _pipeline(json.dumps(cleaning.resolve(config)))
    if pipeline or tally:
        return pipeline.clean(documents, tally, removed)
    return documents


@lru_cache(maxsize=4)
def _pipeline(settings: str) -> Pipeline:
    return Pipeline(json.loads(settings))
