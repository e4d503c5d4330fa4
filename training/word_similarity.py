"""What word vectors know: neighbours, analogies, and agreement with what people judge alike.

V vocabulary · Q questions · D width
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from configs.errors import UserError, choose
from data.word_vectors import WordVectors

METHODS = ('add', 'mul')
MUL_EPSILON = 1e-6  # added to the divisor of 3CosMul, as in gensim
LARGEST_VOCABULARY = 300_000  # the most frequent words, among which answers are looked for, as in gensim
AT_ONCE = 256  # questions whose scores are in memory


@dataclasses.dataclass(frozen=True)
class Section:
    """The questions of one section of a questions file whose words are all known."""

    name: str
    questions: list[tuple[str, str, str, str]]  # A is to B as C is to D
    answers: list[str]
    left_out: int  # questions with unknown words

    @property
    def correct(self) -> list[bool]:
        """Whether each answer is right, capitals apart."""
        return [
            answer.upper() == question[3].upper()
            for question, answer in zip(self.questions, self.answers, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well cosines agree with human judgements."""

    spearman: float
    pearson: float
    pairs: int
    left_out: int  # pairs with unknown words


def nearest(vectors: WordVectors, word: str, top: int) -> list[tuple[str, float]]:
    """Returns the `top` words most like `word`, with their cosines; UserError if it is unknown."""
    at = vectors.id_of(word)
    return _best(vectors, vectors.units @ vectors.units[at], (at,), top)


def analogy(
    vectors: WordVectors, words: Sequence[str], top: int, method: str = 'add'
) -> list[tuple[str, float]]:
    """Returns the `top` answers to 'A is to B as C is to …', with their scores; words: A, B, C."""
    ids = [vectors.id_of(word) for word in words]
    scores_QV = analogy_scores(vectors.units, np.array([ids]), choose('method', method, METHODS))
    return _best(vectors, scores_QV[0], ids, top)


def cosine(vectors: WordVectors, first: str, second: str) -> float:
    """Returns the cosine between two words' vectors; UserError if one is unknown."""
    return float(vectors.units[vectors.id_of(first)] @ vectors.units[vectors.id_of(second)])


def analogy_scores(units_VD: np.ndarray, ids_Q3: np.ndarray, method: str) -> np.ndarray:
    """Returns float32 [Q, V]: how well each word answers 'A is to B as C is to …'.

    'add' (3CosAdd): the cosine with b − a + c, unit vectors (Mikolov et al. 2013c). 'mul' (3CosMul):
    cos(d, b) cos(d, c) / (cos(d, a) + ε), each cosine moved to 0 … 1 (Levy & Goldberg 2014, eq. 4).
    """
    a_QD, b_QD, c_QD = (units_VD[ids_Q3[:, place]] for place in range(3))
    if method == 'add':
        sums_QD = b_QD - a_QD + c_QD
        lengths = np.linalg.norm(sums_QD, axis=1, keepdims=True)
        return (sums_QD / np.where(lengths > 0, lengths, 1.0)) @ units_VD.T
    a_QV, b_QV, c_QV = ((1 + x_QD @ units_VD.T) / 2 for x_QD in (a_QD, b_QD, c_QD))
    return b_QV * c_QV / (a_QV + MUL_EPSILON)


def evaluate_analogies(vectors: WordVectors, path: Path, method: str = 'add') -> list[Section]:
    """Answers the questions of a file like questions-words.txt: ': section', then lines of four words.

    As in gensim: capitals do not matter, answers are looked for among the LARGEST_VOCABULARY first words,
    none of the question's three words is an answer, and questions with unknown words are left out.
    Raises UserError for a file of another kind, or of which no question has known words alone.
    """
    choose('method', method, METHODS)
    units_VD = vectors.units[:LARGEST_VOCABULARY]
    words = [word.upper().removeprefix('\u2581') for word in vectors.words[: len(units_VD)]]
    alike: dict[str, list[int]] = {}  # the forms of each word, the most frequent first
    for number, word in enumerate(words):
        alike.setdefault(word, []).append(number)
    sections = []
    for name, questions in _read_questions(path):
        known = [question for question in questions if all(word.upper() in alike for word in question)]
        answers = []
        for start in range(0, len(known), AT_ONCE):
            asked = [
                [alike[word.upper()] for word in question[:3]] for question in known[start : start + AT_ONCE]
            ]
            ids_Q3 = np.array([[forms[0] for forms in question] for question in asked])
            scores_QV = analogy_scores(units_VD, ids_Q3, method)
            for scores_V, question in zip(scores_QV, asked, strict=True):
                scores_V[[number for forms in question for number in forms]] = -np.inf
            answers += [vectors.words[best].removeprefix('\u2581') for best in scores_QV.argmax(axis=1)]
        sections.append(Section(name, known, answers, len(questions) - len(known)))
    if not any(section.questions for section in sections):
        raise UserError(f'{path}: no question has known words alone. Give vectors of its language.')
    return sections


def evaluate_similarity(vectors: WordVectors, path: Path) -> Agreement:
    """Compares cosines with a file like wordsim353.tsv: two words and a number a line, tabs between.

    As in gensim: capitals do not matter, and pairs with a word that is not among the LARGEST_VOCABULARY first
    are left out. Raises UserError for a file of another kind, or with fewer than two known pairs.
    """
    ids: dict[str, int] = {}
    for number, word in enumerate(vectors.words[:LARGEST_VOCABULARY]):
        ids.setdefault(word.upper().removeprefix('\u2581'), number)
    judged, computed, left_out = [], [], 0
    for number, line in _lines(path):
        fields = line.split('\t') if '\t' in line else line.replace(',', ' ').split()
        try:
            first, second, judgement = fields[0].strip().upper(), fields[1].strip().upper(), float(fields[2])
        except (IndexError, ValueError) as error:
            raise UserError(
                f'{path}, line {number}: expected two words and a number, with tabs, found {line[:60]!r}.'
            ) from error
        if first in ids and second in ids:
            judged.append(judgement)
            computed.append(float(vectors.units[ids[first]] @ vectors.units[ids[second]]))
        else:
            left_out += 1
    if len(set(judged)) < 2:
        raise UserError(f'{path}: of {len(judged) + left_out} pairs {len(judged)} have known words; too few.')
    from scipy.stats import rankdata  # takes as long to import as JAX, and training seldom needs it

    # Spearman's coefficient is Pearson's of the ranks, equals sharing their mean.
    ranks = [rankdata(values) for values in (judged, computed)]
    spearman, pearson = (float(np.corrcoef(values)[0, 1]) for values in (ranks, [judged, computed]))
    return Agreement(spearman, pearson, len(judged), left_out)


def holds_questions(path: Path) -> bool:
    """Whether a file is one of questions, which has sections, and not of pairs."""
    return next((line.startswith(':') for _, line in _lines(path)), False)


def _read_questions(path: Path) -> Iterable[tuple[str, list[tuple[str, str, str, str]]]]:
    sections: list[tuple[str, list]] = []
    for number, line in _lines(path):
        if line.startswith(':'):
            sections.append((line.lstrip(': ').strip(), []))
            continue
        words = line.split()
        if len(words) != 4 or not sections:
            raise UserError(
                f"{path}, line {number}: expected ': section' and lines of four words, found {line[:60]!r}."
            )
        sections[-1][1].append(tuple(words))
    return sections


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns the numbered lines that are neither empty nor comments."""
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read ({error}). Give a file of questions or of pairs.') from error
    lines = enumerate(text.splitlines(), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith('#')]


def _best(
    vectors: WordVectors, scores_V: np.ndarray, excluded: Sequence[int], top: int
) -> list[tuple[str, float]]:
    scores_V[list(excluded)] = -np.inf
    best = np.argsort(-scores_V, kind='stable')[: max(0, min(top, len(scores_V) - len(set(excluded))))]
    return [(vectors.words[number], float(scores_V[number])) for number in best]
