"""ROUGE-1, -2 and -L (Lin 2004) by the rouge-score library, in Chinese over characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.metrics import bootstrap, squad
from tasks.metrics.bootstrap import Score

KINDS = ('rouge1', 'rouge2', 'rougeL')


class Characters:
    """Tokens of rouge-score: ideographs one by one, and words of other scripts."""

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of a text."""
        return squad.IDEOGRAPH.sub(r' \1 ', text.lower()).split()


def scores(answers: Sequence[str], references: Sequence[str], language: str) -> dict[str, Score]:
    """Returns the mean F1 in percent of rouge1, rouge2 and rougeL; English words are stemmed."""
    # Imported here: it takes a second, and nothing else needs it.
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = Characters() if language == 'zh' else None
    scorer = RougeScorer(list(KINDS), use_stemmer=tokenizer is None, tokenizer=tokenizer)
    found = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {kind: bootstrap.mean(np.array([100 * each[kind].fmeasure for each in found])) for kind in KINDS}
