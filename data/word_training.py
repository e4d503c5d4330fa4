"""A vocabulary of words with their counts, and of phrases, from all of a text.

The text is read once, in parts, by several processes; once more for phrases. Counts are merged in the
order of the parts, so that they do not depend on the number of processes.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from ml_collections import ConfigDict

from configs.errors import UserError
from data import cleaned, words, workers
from data.sources import Split, is_held_out
from data.word_tokenizer import WordTokenizer, join_phrases, serialise

MOST_COUNTED = 16_000_000  # different words, or pairs of words, kept in memory while counting: about 2 GB


def train(parts: list[Split], config: ConfigDict) -> WordTokenizer:
    """Returns the words that occur in training documents at least tokenizer.min_count times.

    At most tokenizer.vocab_size of them, the special symbols included: the most frequent, equals in the
    order of their characters. With tokenizer.phrase_threshold, neighbours that come together far more often
    than by chance are one word (Mikolov et al. 2013b, section 4). Raises UserError if fewer than 2 are left.
    """
    counts = count(_words, parts, config)
    phrases = []
    if config.tokenizer.phrase_threshold:
        pairs = count(_pairs, parts, config)
        phrases = find_phrases(
            counts,
            pairs,
            min_count=config.tokenizer.min_count,
            threshold=config.tokenizer.phrase_threshold,
        )
        counts = count(_words, parts, config, frozenset(phrases))
    room = config.tokenizer.vocab_size - 3
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [item for item in ordered if item[1] >= config.tokenizer.min_count][:room]
    if len(kept) < 2:
        raise UserError(
            f'{len(kept)} of the {len(counts):,} different words of data.source={config.data.source!r} '
            f'are kept with tokenizer.min_count={config.tokenizer.min_count} and tokenizer.vocab_size='
            f'{config.tokenizer.vocab_size}; at least 2 are needed. Add text, or change these keys.'
        )
    return WordTokenizer(serialise(kept, lowercase=config.tokenizer.lowercase, phrases=phrases))


def find_phrases(
    counts: Counter[str], pairs: Counter[str], *, min_count: int, threshold: float
) -> list[tuple[str, str]]:
    """Returns the pairs of words with (n_ab − min_count) / (n_a · n_b) · N above the threshold.

    Source: Mikolov et al. 2013b, eq. 6, with the number of words N and the discount of their program.

    Args:
      counts: n_a of each word.
      pairs: n_ab of 'a b'.
    """
    total = counts.total()
    found = []
    for pair, together in pairs.items():
        first, second = pair.split(' ')
        if min(counts[first], counts[second]) < min_count:
            continue
        if (together - min_count) / (counts[first] * counts[second]) * total > threshold:
            found.append((first, second))
    return sorted(found)


def count(
    function,
    parts: list[Split],
    config: ConfigDict,
    phrases: frozenset[tuple[str, str]] = frozenset(),
) -> Counter[str]:
    """Returns how often function(words of a document) yields each string, over all training documents.

    When there are more than MOST_COUNTED, the rarest are forgotten, as in word2vec's own program.
    """
    jobs = {number: (function, number, part, config, phrases) for number, part in enumerate(parts)}
    totals: Counter[str] = Counter()
    waiting: dict[int, Counter[str]] = {}
    merged, rarest = 0, 1
    for number, counted in workers.run(count_part, jobs, config.data.num_workers, config.data.engine):
        waiting[number] = counted
        while merged in waiting:
            totals.update(waiting.pop(merged))
            merged += 1
            while len(totals) > MOST_COUNTED:
                totals = Counter({word: n for word, n in totals.items() if n > rarest})
                rarest += 1
    return totals


def count_part(function, number: int, part: Split, config: ConfigDict, phrases: frozenset) -> Counter[str]:
    """Returns the counts of one part of the source."""
    counts: Counter[str] = Counter()
    for document in cleaned.documents(number, part, config):
        if not is_held_out(document.text, config.data.eval_fraction):
            found = words.split(document.text, lowercase=config.tokenizer.lowercase)
            counts.update(function(join_phrases(found, set(phrases)) if phrases else found))
    return counts


def _words(found: list[str]) -> list[str]:
    return found


def _pairs(found: list[str]) -> list[str]:
    return [f'{first} {second}' for first, second in pairwise(found)]
