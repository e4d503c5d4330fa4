"""Looks at word vectors: neighbours, analogies, evaluation, conversion, pictures.

  python embeddings.py --checkpoint=runs/word2vec nearest king queen
  python embeddings.py --checkpoint=runs/word2vec analogy man king woman [--method=mul]
  python embeddings.py --checkpoint=runs/word2vec similarity tea coffee
  python embeddings.py --checkpoint=runs/word2vec evaluate questions-words.txt wordsim353.tsv
  python embeddings.py --checkpoint=runs/word2vec export vectors.txt [--format=word2vec-binary]
  python embeddings.py --checkpoint=vectors.txt import runs/imported
  python embeddings.py --checkpoint=runs/word2vec plot --output=words.png man king woman queen

--checkpoint takes a run of word embeddings, any Transformer (its table of tokens) as all commands do, or a
file of vectors in word2vec's format, text or binary, or GloVe's. `analogy A B C` asks what stands to C as B
to A; --method=mul is 3CosMul. `evaluate` takes files of analogies (': section', then four words a line) and
of similarities (two words and a number a line, with tabs); --output=FILE.json keeps every answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from configs import command_line
from configs.errors import UserError, choose
from data.files import write_whole
from parallel.peers import ending_together

if TYPE_CHECKING:
    from data.word_vectors import WordVectors

CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Run, published model, or file of vectors.', required=True
)
TOP = flags.DEFINE_integer('top', 10, 'Words shown by nearest and analogy.', lower_bound=1)
METHOD = flags.DEFINE_enum('method', 'add', ('add', 'mul'), 'Of analogies: 3CosAdd or 3CosMul.')
FORMAT = flags.DEFINE_enum(
    'format', 'word2vec', ('word2vec', 'word2vec-binary', 'glove'), 'What export writes.'
)
OUTPUT = flags.DEFINE_string('output', None, 'PNG of plot, or JSON of evaluate.')

# name: how many words may follow it, and what they are
COMMANDS = {
    'nearest': (1, None, 'WORD …'),
    'analogy': (3, 3, 'A B C'),
    'similarity': (2, 2, 'WORD WORD'),
    'evaluate': (1, None, 'FILE …'),
    'export': (1, 1, 'FILE'),
    'import': (1, 1, 'RUN'),
    'plot': (3, None, 'WORD WORD WORD …'),
}


def main(words: list[str]) -> None:
    """Carries out one of COMMANDS."""
    if not words:
        raise UserError(f'no command given: use one of {", ".join(COMMANDS)}.')
    command, *rest = words
    least, most, expected = COMMANDS[choose('command', command, COMMANDS)]
    if len(rest) < least or (most and len(rest) > most):
        number = f'{least}' if least == most else f'at least {least}'
        raise UserError(f'{command} takes {expected}, {number}; given: {len(rest)}.')
    if command == 'plot' and not OUTPUT.value:
        raise UserError('plot needs --output=FILE.png.')
    command_line.check_output('output', OUTPUT.value)
    vectors = open_vectors(CHECKPOINT.value)
    if command == 'nearest':
        show_nearest(vectors, rest)
    elif command == 'analogy':
        show_analogy(vectors, rest)
    elif command == 'similarity':
        from training import word_similarity

        print(f'{word_similarity.cosine(vectors, *rest):.4f}')
    elif command == 'evaluate':
        evaluate(vectors, [Path(path) for path in rest])
    elif command == 'plot':
        from training import plot

        plot.draw_words(vectors, rest, Path(OUTPUT.value or ''))
        print(f'wrote {OUTPUT.value}')
    else:
        convert(vectors, command, Path(rest[0]))


def open_vectors(checkpoint: str) -> WordVectors:
    """Returns the vectors of a run, a published model or a file; UserError if it is none of these."""
    from data import word_vectors

    path = Path(checkpoint)
    if path.is_file() and path.suffix != '.gguf':
        return word_vectors.read(path)
    from parallel import processes
    from training import run, vectors

    processes.start()
    opened = run.open_run(checkpoint)
    return vectors.of_model(opened.params, opened.tokenizer)


def show_nearest(vectors: WordVectors, words: list[str]) -> None:
    """Prints the neighbours of each word, likest first."""
    from training import console, word_similarity

    found = {word: word_similarity.nearest(vectors, word, TOP.value) for word in words}
    for word, neighbours in found.items():
        console.Log(None)(console.table(word, ['word', 'cosine'], _rounded(neighbours)))


def show_analogy(vectors: WordVectors, words: list[str]) -> None:
    """Prints what C is to as A is to B, likeliest first."""
    from training import console, word_similarity

    answers = word_similarity.analogy(vectors, words, TOP.value, METHOD.value)
    title = '{} is to {} as {} is to …'.format(*words)
    console.Log(None)(console.table(title, ['word', 'score'], _rounded(answers)))


def _rounded(scored: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(word, round(score, 4)) for word, score in scored]


def evaluate(vectors: WordVectors, paths: list[Path]) -> None:
    """Prints, and writes to --output, how the vectors do on each file."""
    from training import console, word_similarity

    log, results = console.Log(None), {}
    for path in paths:
        if word_similarity.holds_questions(path):
            sections = word_similarity.evaluate_analogies(vectors, path, METHOD.value)
            rows = [(s.name, sum(s.correct), len(s.questions), s.left_out) for s in sections]
            right, asked, unknown = np.sum([row[1:] for row in rows], axis=0).tolist()
            rows.append(('all', right, asked, unknown))
            shown = [(*row, f'{row[1] / row[2]:.2%}' if row[2] else '-') for row in rows]
            log(console.table(path.name, ['section', 'right', 'asked', 'unknown words', 'accuracy'], shown))
            results[path.name] = {
                'accuracy': right / asked,
                'answers': [
                    [*question, answer]
                    for section in sections
                    for question, answer in zip(section.questions, section.answers, strict=True)
                ],
            }
        else:
            agreement = word_similarity.evaluate_similarity(vectors, path)
            results[path.name] = vars(agreement)
            row = tuple(round(value, 4) for value in vars(agreement).values())
            log(console.table(path.name, ['Spearman', 'Pearson', 'pairs', 'unknown words'], [row]))
    if OUTPUT.value:
        write_whole(Path(OUTPUT.value), (json.dumps(results, ensure_ascii=False) + '\n').encode())


def convert(vectors: WordVectors, command: str, target: Path) -> None:
    """Writes the vectors as a file, or as a run."""
    from data import word_vectors

    if command == 'export':
        command_line.check_output('export', str(target))
        word_vectors.write(target, vectors, FORMAT.value)
    else:
        from parallel import processes
        from training import imported_vectors, pretrained, run

        processes.start()
        run.save_as_run(imported_vectors.as_run(vectors), pretrained.new_directory(target))
    print(f'wrote {len(vectors):,} vectors of {vectors.vectors.shape[1]} numbers to {target}')


if __name__ == '__main__':
    command_line.run(ending_together(main), __doc__ or '', takes_words=True)
