"""Word2Vec beside gensim: words a second and quality, on the same text, vocabulary, epochs and width.

  python prepare.py --config=configs/word2vec.py --config.data.source=FILE.txt \\
      --config.data.eval_fraction=0 --config.data.path=prepared/english
  python -m benchmarks.word2vec --config=configs/word2vec.py:cbow --config.data.path=prepared/english \\
      --config.data.eval_fraction=0 [--epochs=3] [--seeds=1,2,3] [--workers=2]

For each seed gensim learns from the prepared words, read from a file by its own threads (its fastest way),
then Lathe's training step from the shards, with the config's settings; num_steps follows from the epochs.
Times leave out what each does once: reading the vocabulary, compiling. Quality is measured with the files
that gensim ships, as gensim measures it (tests/parity), only faster. benchmarks/english_text.py makes
such a text.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import command_line, experiment

if TYPE_CHECKING:
    from data.word_vectors import WordVectors

command_line.define_config()
EPOCHS = flags.DEFINE_integer('epochs', 3, 'Times that each reads the text.', lower_bound=1)
SEEDS = flags.DEFINE_list('seeds', ['1'], 'Seeds, one run each.')
WORKERS = flags.DEFINE_integer('workers', 2, "gensim's threads.", lower_bound=1)
ONLY = flags.DEFINE_enum('only', None, ('lathe', 'gensim'), 'Run one of the two alone.')


def write_sentences(config: ConfigDict, path: Path) -> int:
    """Writes the prepared words as gensim reads them, a document a line; returns their number."""
    from data import manifest
    from data.tokenizer import load

    tokenizer = load(Path(config.data.path) / 'tokenizer')
    prepared, count = manifest.load(config), 0
    words = tokenizer.words  # pyright: ignore
    with path.open('w', encoding='utf-8') as file:
        left = np.zeros(0, prepared['dtype'])
        for shard in prepared['train']['shards']:
            ids = np.fromfile(Path(config.data.path) / shard['file'], prepared['dtype'])[:-1]
            ids = np.concatenate([left, ids])
            *documents, left = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id) + 1)
            for document in documents:
                known = document[document > tokenizer.eos_id]
                count += len(known)
                file.write(' '.join(words[at] for at in known.tolist()) + '\n')
    return count


def train_gensim(config: ConfigDict, sentences: Path, seed: int) -> tuple[float, WordVectors]:
    """Returns seconds of training and the vectors."""
    from gensim.models import Word2Vec

    from data.word_vectors import WordVectors

    model = Word2Vec(
        sg=int(config.objective == 'skip_gram'),
        vector_size=config.model.embed_dim,
        window=config.words.window,
        negative=config.words.negatives,
        ns_exponent=config.words.noise_power,
        sample=config.words.subsample,
        min_count=1,  # rarer words were left out by prepare.py
        max_final_vocab=None,
        epochs=EPOCHS.value,
        workers=WORKERS.value,
        seed=seed,
    )
    model.build_vocab(corpus_file=str(sentences))
    started = time.perf_counter()
    model.train(
        corpus_file=str(sentences),
        total_words=model.corpus_total_words,
        total_examples=model.corpus_count,
        epochs=EPOCHS.value,
    )
    return time.perf_counter() - started, WordVectors([*map(str, model.wv.index_to_key)], model.wv.vectors)


def train_lathe(config: ConfigDict, seed: int, words: int) -> tuple[float, WordVectors]:
    """Returns seconds of training, without the first steps' compilation, and the vectors."""
    import jax

    import objectives
    from data import loader
    from parallel import compiler
    from parallel import mesh as meshes
    from training import run, vectors
    from training import state as states
    from training.evaluation import batches
    from training.optimizer import make_optimizer, make_schedule
    from training.step import make_train_step

    config = config.copy_and_resolve_references()
    config.seed = seed
    data = loader.load(config, split='train')
    config.num_steps = round(EPOCHS.value * data.num_batches)  # pyright: ignore
    mesh = meshes.make_mesh(config.mesh)
    jax.set_mesh(mesh)
    objective = objectives.get(config.objective)
    model = run.build_model(config, data.tokenizer, mesh)
    objective.check(config, model.config, data.tokenizer)
    optimizer = make_optimizer(config)
    abstract = states.abstract_state(model, optimizer, mesh, seed=config.seed, ema=False)
    train_step = jax.jit(
        make_train_step(model, objective, config, optimizer, make_schedule(config)),
        donate_argnums=0,
        compiler_options=compiler.options(mesh),
    )
    stream = batches(config, objective, mesh, data, data.initial_position())
    # Compiled on a state of its own, which is thrown away.
    state = states.create(model, optimizer, abstract, seed=config.seed)
    jax.block_until_ready(train_step(state, next(stream)[0]))
    state = states.create(model, optimizer, abstract, seed=config.seed)
    stream = batches(config, objective, mesh, data, data.initial_position())
    started, metrics, pending = time.perf_counter(), None, None
    for _ in range(config.num_steps):
        state, metrics = train_step(state, next(stream)[0])
        jax.block_until_ready(pending)
        pending = metrics
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
    return seconds, vectors.of_model(state.params, data.tokenizer)


def quality(vectors: WordVectors) -> dict[str, float]:
    """Returns Spearman's coefficients on WordSim-353 and SimLex-999, and the accuracy on questions-words."""
    from gensim.test.utils import datapath

    from training import word_similarity

    wordsim, simlex = (
        word_similarity.evaluate_similarity(vectors, Path(datapath(name))).spearman
        for name in ('wordsim353.tsv', 'simlex999.txt')
    )
    sections = word_similarity.evaluate_analogies(vectors, Path(datapath('questions-words.txt')))
    asked = sum(len(section.questions) for section in sections)
    right = sum(sum(section.correct) for section in sections)
    return {'wordsim353': wordsim, 'simlex999': simlex, 'analogies': right / asked, 'asked': asked}


def main() -> None:
    """Trains both for each seed and prints a line for each."""
    config = flags.FLAGS.config
    experiment.check(config)
    from parallel import processes

    processes.start()
    with tempfile.TemporaryDirectory() as directory:
        sentences = Path(directory) / 'sentences.txt'
        words = write_sentences(config, sentences)
        print(f'{config.objective}: {words:,} words, {EPOCHS.value} epochs', flush=True)
        for seed in map(int, SEEDS.value):
            speeds = {}
            for name in ('gensim', 'lathe'):
                if ONLY.value not in (None, name):
                    continue
                if name == 'gensim':
                    seconds, vectors = train_gensim(config, sentences, seed)
                else:
                    seconds, vectors = train_lathe(config, seed, words)
                speeds[name] = EPOCHS.value * words / seconds
                result = {'seed': seed, 'words_per_second': round(speeds[name])}
                result |= {key: round(value, 4) for key, value in quality(vectors).items()}
                print(f'{name:7}', json.dumps(result), flush=True)
            if len(speeds) == 2:
                print(f'ratio   {speeds["lathe"] / speeds["gensim"]:.2f}', flush=True)


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
