"""GloVe: a vector for each word, from how often words stand near each other (Pennington et al. 2014).

  python prepare.py    --config=configs/glove.py --config.data.source='corpus/*.txt'
  python train.py      --config=configs/glove.py --workdir=runs/glove
  python embeddings.py --checkpoint=runs/glove nearest king

prepare.py counts pairs within ten words on either side, in bounded memory, and train.py reads the records.
A row is sequence_length records. Window, x_max, alpha and learning rate are the paper's and its program's.

`:smoke` is the same shrunk to seconds.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base, word2vec
from configs.errors import choose


def get_config(size: str = '') -> ConfigDict:
    """Returns the experiment; `size` is '' or 'smoke'."""
    choose('size', size, ('', 'smoke'))
    config = base.get_config()
    word2vec.for_words(config)
    config.objective = 'glove'
    config.model.use_bias = True
    config.sequence_length = 8192
    config.batch_size = 16
    config.num_steps = 6000
    config.optimizer.name = 'adagrad'
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = 'constant'
    config.optimizer.eps = 1e-20  # gradients are means over a hundred thousand records
    config.data.cooccurrence_window = 10
    config.data.eval_fraction = 0.0
    config.data.path = 'prepared/glove'
    if size == 'smoke':
        word2vec.shrink(config)
        config.data.path = 'prepared/glove-smoke'
    config.eval_every = 0
    return config
