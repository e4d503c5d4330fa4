"""Word2Vec: a vector for each word, from the words that stand around it (Mikolov et al. 2013).

  python prepare.py    --config=configs/word2vec.py --config.data.source='corpus/*.txt'
  python train.py      --config=configs/word2vec.py --workdir=runs/word2vec
  python embeddings.py --checkpoint=runs/word2vec nearest king

Skip-gram; `:cbow` is CBOW. Width, window, negatives, subsampling and min_count are gensim's defaults.
`--config.tokenizer.phrase_threshold=100` joins words that belong together: new_york. Chinese is cut into
words by jieba's dictionary.
num_steps is three readings of 18 million words: words × readings / (batch_size × sequence_length).

`:smoke` is skip-gram shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base
from configs.errors import choose


def get_config(size: str = 'skip_gram') -> ConfigDict:
    """Returns the experiment; `size` is 'skip_gram', 'cbow' or 'smoke'."""
    choose('size', size, ('skip_gram', 'cbow', 'smoke'))
    config = base.get_config()
    for_words(config)
    config.objective = 'cbow' if size == 'cbow' else 'skip_gram'
    # A place is one pair of CBOW, and about five of skip-gram.
    config.words.least_pairs = 4.0 if size == 'cbow' else 8.0
    # A noise word meets the pairs of all places that share it: of CBOW's, half as many noise words suffice.
    config.words.shared_negatives = 16 if size == 'cbow' else 32
    config.sequence_length = 4096
    config.batch_size = 2
    config.num_steps = 6600
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.8  # over least_pairs: 0.1 for a pair of a rare word, 0.2 of CBOW's
    config.optimizer.schedule = 'linear'
    config.optimizer.final_learning_rate = 0.0
    config.data.path = 'prepared/word2vec'
    if size == 'smoke':
        shrink(config)
        config.data.path = 'prepared/word2vec-smoke'
    return config


def for_words(config: ConfigDict) -> None:
    """Makes an experiment one of word embeddings."""
    config.model.family = 'word_embeddings'
    config.model.embed_dim = 100
    config.tokenizer.kind = 'words'
    config.tokenizer.vocab_size = 400_000
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 0.0
    config.eval_every = 250
    config.eval_batches = 4
    config.sample_every = 250
    config.sample_prompts = ('king', 'good', 'three', 'water')
    config.checkpoint_every = 250


def shrink(config: ConfigDict) -> None:
    """Makes word embeddings small enough for seconds on one core."""
    config.model.embed_dim = 32
    config.sequence_length = 512
    config.batch_size = 8
    config.num_steps = 30
    config.tokenizer.vocab_size = 4096
    config.log_every = 1
    config.eval_every = 10
    config.eval_batches = 1
    config.checkpoint_every = 10
    config.sample_every = 30
    config.sample_prompts = ('file', 'returns')
