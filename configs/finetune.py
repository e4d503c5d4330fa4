"""Fine-tuning for a task, from a trained model or from nothing.

  python train.py --config=configs/finetune.py:sentiment --workdir=runs/sentiment \
      --config.initial_checkpoint=hf:sentence-transformers/all-MiniLM-L6-v2 \
      --config.task.source=reviews.csv --config.task.fields='text=review, label=stars'
  python evaluate.py --checkpoint=runs/sentiment --task=sentiment

The argument is a task, a file in tasks/: sentiment, classification, question_answering, summarization,
translation, writing or chat. Without task.source it learns from the few examples that every machine has
(tasks/builtin.py). `:TASK:mini` begins with nothing but a small model: an encoder for classes and for answers
marked in a text, a decoder for what is written. So each runs offline, in a minute or two on a laptop's CPU.
`:TASK:smoke` is it shrunk to seconds.

Recipe of encoders: Devlin et al. 2019, appendix A.3 (learning rate 5e-5 to 2e-5, 2 to 4 epochs, batches of
32, linear decay); here a row holds several short texts side by side, so that a batch has more of them.
Dropout is as the model was trained: 0.1, but none of LLaMA and its descendants.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base
from configs.errors import choose

# task: metric by which the best checkpoint is kept, tokens of a row, of an answer at most, passes over the
# examples; and of a small model from nothing: family, vocabulary
TASKS = {
    'classification': ('macro_f1', 128, 64, 3.0, 'bert', 4096),
    'sentiment': ('accuracy', 128, 64, 3.0, 'bert', 512),
    'question_answering': ('f1', 256, 32, 2.0, 'bert', 4096),
    'summarization': ('rougeL', 512, 48, 3.0, 'llama', 4096),
    'translation': ('chrf', 128, 64, 30.0, 'llama', 1024),
    'writing': ('edit_f0.5', 256, 96, 3.0, 'llama', 4096),
    'chat': ('chrf', 512, 128, 3.0, 'llama', 4096),
}


def get_config(argument: str = 'sentiment') -> ConfigDict:
    """Returns the experiment; `argument` is a key of TASKS, or TASK:smoke."""
    task, _, size = argument.partition(':')
    choose('task', task, TASKS)
    choose('size', size, ('', 'mini', 'smoke'))
    metric, length, answer, epochs, family, vocab_size = TASKS[task]
    config = base.get_config()
    config.task.name = task
    config.task.epochs = epochs
    config.best_metric = f'eval/{metric}'
    config.task.answer_tokens = answer
    config.model.dropout_rate = placeholder(float)
    config.sequence_length = length
    config.batch_size = 16
    config.tokenizer.vocab_size = vocab_size
    config.data.eval_fraction = 0.1
    config.optimizer.learning_rate = 5e-5
    config.optimizer.schedule = 'linear'
    config.optimizer.final_learning_rate = 0.0
    config.optimizer.warmup_steps = 10
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.01
    config.eval_every = 100
    config.eval_batches = 0
    config.checkpoint_every = 100
    config.sample_every = 0
    if size:
        config.model.family = family
        config.model.dropout_rate = 0.1
        config.model.num_layers = 4
        config.model.embed_dim = 256
        config.model.num_heads = 4
        config.optimizer.learning_rate = 5e-4
    if size == 'smoke':
        base.shrink(config)
        config.sequence_length = max(64, length // 2)
        config.tokenizer.vocab_size = min(vocab_size, 1024)
        config.task.epochs = 0.0
        config.task.eval_examples = 20
        config.sample_every = 0
    return config
