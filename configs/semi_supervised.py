"""Classes from few labelled texts and many without: consistency training, and students of a teacher's labels.

  python train.py --config=configs/semi_supervised.py --workdir=runs/consistent \
      --config.initial_checkpoint=MODEL \
      --config.task.source=few.jsonl --config.task.unlabelled=many.jsonl

learns from both at once: where the model is certain of a text, it is to say the same when tokens are hidden
and units dropped (UDA, Xie et al. 2020; FixMatch, Sohn et al. 2020). `:student` is for rounds of
self-training with noise (Noisy Student, Xie et al. 2020): a teacher labels the texts, a student learns from
its labels and becomes the next teacher.

  python label.py --checkpoint=runs/teacher --input=many.jsonl --output=labelled.jsonl --balance
  python train.py --config=configs/semi_supervised.py:student --workdir=runs/student \
      --config.initial_checkpoint=MODEL --config.task.source=few.jsonl,labelled.jsonl
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import finetune
from configs.errors import choose


def get_config(kind: str = 'consistency') -> ConfigDict:
    """Returns the experiment; `kind` is 'consistency', 'student', or 'smoke': a small model from nothing."""
    choose('kind', kind, ('consistency', 'student', 'smoke'))
    config = finetune.get_config('sentiment:smoke' if kind == 'smoke' else 'sentiment')
    config.task.mask_rate = 0.15
    config.model.dropout_rate = 0.1
    if kind == 'smoke':
        config.tokenizer.control_symbols = ('<mask>',)
        config.task.unlabelled = 'builtin:opinions'
    if kind != 'student':
        config.task.consistency = 1.0
        config.task.epochs = 0.0 if kind == 'smoke' else 1.0
    return config
