"""datatrove's side of benchmarks/cleaning.py, run by the Python of an environment that has it.

  PYTHON benchmarks/cleaning_peer.py DOCUMENTS.json EVALUATION.txt MODEL.ftz LANGUAGE

For each line on standard input, the name of a step, that step is applied to every document, and a line
of JSON printed: seconds of the processor's time, and how many documents it changed or dropped.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def steps(evaluation: Path, model: str, language: str) -> dict[str, Callable[[], Callable[[str], bool]]]:
    """Returns {name: what makes a function that tells of a text whether the step changes or drops it}."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
    )
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.utils import lid
    from datatrove.utils.text import ngrams, simplify_text

    lid.FT176LID.MODEL_URL = model

    def dropping(step: Any) -> Callable[[str], bool]:
        def apply(text: str) -> bool:
            result = step.filter(Document(text, 'id'))
            return not (result[0] if isinstance(result, tuple) else result)

        return apply

    def changing(step: Any) -> Callable[[str], bool]:
        return lambda text: step.format(text) != text

    def near_duplicates() -> Callable[[str], bool]:
        config = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
        step = MinhashDedupSignature(tempfile.mkdtemp(), config, language=language)

        def apply(text: str) -> bool:
            shingles = step.get_shingles(text)
            if len(shingles):
                step.get_signature(shingles)
            return False

        return apply

    def decontamination() -> Callable[[str], bool]:
        step = NGramsDecontFilter(tempfile.mkdtemp(), NGramsDecontConfig(n_grams=13), language=language)
        tokens = step.tokenizer.word_tokenize(simplify_text(evaluation.read_text(), step.config.norm_config))
        step._index_hashes = {step.hash_func(' '.join(gram)): 'exam' for gram in ngrams(tokens, 13)}
        return dropping(step)

    return {
        'repairs': lambda: changing(FTFYFormatter()),
        'emails, IP addresses': lambda: changing(PIIFormatter()),
        'c4': lambda: dropping(C4QualityFilter(language=language)),
        'gopher_quality': lambda: dropping(GopherQualityFilter(language=language)),
        'gopher_repetition': lambda: dropping(GopherRepetitionFilter(language=language)),
        'language': lambda: dropping(LanguageFilter(('en', 'zh'), language_threshold=0.5)),
        'evaluation': decontamination,
        'near duplicates': near_duplicates,
    }


def main() -> None:
    """Answers the lines on standard input."""
    documents, evaluation, model, language = sys.argv[1:]
    texts = json.loads(Path(documents).read_bytes())
    out, made = sys.stdout, {}
    with contextlib.redirect_stdout(sys.stderr):
        known = steps(Path(evaluation), model, language)
        for line in sys.stdin:
            name = line.strip()
            apply = made.get(name) or known[name]()
            made[name] = apply
            apply(texts[0])  # models are loaded the first time
            started = time.process_time()
            touched = sum(map(apply, texts))
            print(json.dumps([time.process_time() - started, touched]), file=out, flush=True)


if __name__ == '__main__':
    main()
