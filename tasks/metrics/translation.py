"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.metrics import bootstrap
from tasks.metrics.bootstrap import Score

TOKENIZERS = {
    'zh': 'zh',
    'ja': 'char',
    'ko': 'char',
}  # of BLEU, where words have no spaces between; else '13a'


def bleu(answers: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Returns corpus BLEU, 0 to 100, over the tokens of a language."""
    from sacrebleu.metrics.bleu import BLEU

    return _score(BLEU(tokenize=TOKENIZERS.get(language, '13a')), answers, references)


def chrf(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Returns corpus chrF, 0 to 100."""
    from sacrebleu.metrics.chrf import CHRF

    return _score(CHRF(), answers, references)


def _score(metric: Any, answers: Sequence[str], references: Sequence[str]) -> Score:
    """Returns the corpus score and its interval, from what the library counts in each text.

    Its own bootstrap fails where a resample scores nothing at all: it then averages numbers of two types.
    """
    counts_NS = np.array(metric._extract_corpus_statistics(list(answers), [list(references)]))
    return bootstrap.interval(
        lambda numbers: float(
            metric._compute_score_from_stats(counts_NS[numbers].sum(axis=0).tolist()).score
        ),
        len(counts_NS),
    )
