"""BLEU (Papineni et al. 2002) and chrF (Popović 2015) by sacrebleu, with its intervals by bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.metrics.bootstrap import RESAMPLES, SEED, Score

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


def _score(metric: object, answers: Sequence[str], references: Sequence[str]) -> Score:
    import os

    os.environ['SACREBLEU_SEED'] = str(SEED)
    result = metric.corpus_score(list(answers), [list(references)], n_bootstrap=RESAMPLES)  # type: ignore[attr-defined]
    half = result._ci
    return Score(float(result.score), float(result._mean - half), float(result._mean + half))
