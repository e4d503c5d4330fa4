"""Labels texts by a trained model, its teacher, with confidence that can be trusted.

  python label.py --checkpoint=runs/sentiment --task=sentiment --input=unlabelled.jsonl \
      --output=labelled.jsonl --min_confidence=0.9 --uncertain=to_label.jsonl

Each text of --input (files as of task.source; labels are not needed) that the model classes with at least
--min_confidence is written to --output as a line of JSON: its fields, the label, the confidence, and who said
so (checkpoint, step, fingerprints), so that every label can be traced. Confidence is calibrated: the
temperature that suits the examples which the run held out (Guo et al. 2017) divides the logits; --calibrate
names others.

--per_class keeps at most so many of each class, the most confident ones (a teacher of few examples is never
certain, but its order tells much), --balance equally many of each. --uncertain takes the --uncertain_count
texts of which the model is least certain, for a person to label (active learning). Where --input has
labels, agreement with them is told.

A student then learns from both: train.py --config=configs/semi_supervised.py
--config.task.source=few.jsonl,labelled.jsonl, with noise; and labels again with less doubt
(docs/fine-tuning.md).
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from configs import command_line
from configs.errors import UserError
from data.files import write_whole

CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Run that was trained for the task.', required=True)
TASK = flags.DEFINE_string('task', 'sentiment', 'Task of classes: sentiment or classification.')
INPUT = flags.DEFINE_string('input', None, 'Texts to label, files as of task.source.', required=True)
OUTPUT = flags.DEFINE_string('output', None, 'File of JSON lines to write.', required=True)
FIELDS = flags.DEFINE_string('fields', None, "Where the fields are in a record: 'text=review'.")
MIN_CONFIDENCE = flags.DEFINE_float('min_confidence', 0.9, 'Less certain labels are left out.', 0.0, 1.0)
CALIBRATE = flags.DEFINE_string(
    'calibrate', None, 'Labelled examples for the temperature; default: held out.'
)
BALANCE = flags.DEFINE_bool('balance', False, 'Keep equally many of each class, the most confident.')
PER_CLASS = flags.DEFINE_integer(
    'per_class', None, 'Keep at most so many of each class, the most confident.', lower_bound=1
)
UNCERTAIN = flags.DEFINE_string('uncertain', None, 'File for the texts of which the model is least certain.')
UNCERTAIN_COUNT = flags.DEFINE_integer('uncertain_count', 100, 'How many of these.', lower_bound=1)


def main() -> None:
    """Labels the texts, writes the files and prints what came of it."""
    for flag in (OUTPUT, UNCERTAIN):
        command_line.check_output(flag.name, flag.value)
        if flag.value and Path(flag.value).resolve() == Path(INPUT.value).resolve():
            raise UserError(
                f'--{flag.name}={flag.value} is --input too, which would be lost; name another file.'
            )

    import jax

    from parallel import processes
    from training import console, labelling, run

    processes.start()
    opened = run.open_run(CHECKPOINT.value)
    jax.set_mesh(opened.mesh)
    log = console.Log(None, quiet=not processes.is_main())
    teacher = labelling.Teacher(opened, TASK.value, CHECKPOINT.value, FIELDS.value)
    for line in teacher.calibrate(CALIBRATE.value):
        log(line)
    labelled = teacher.label(INPUT.value)
    chosen = labelling.choose(
        labelled, MIN_CONFIDENCE.value, balance=BALANCE.value, per_class=PER_CLASS.value
    )
    if not chosen:
        raise UserError(
            f'no label is as certain as --min_confidence={MIN_CONFIDENCE.value}; the most certain one has '
            f'{max(each.confidence for each in labelled):.3f}. Lower it, or train the teacher longer.'
        )
    log(labelling.table(labelled, chosen, teacher.labels))
    if not processes.is_main():
        return
    write(OUTPUT.value, [teacher.record(each) for each in chosen])
    log(f'wrote {len(chosen):,} labels to {OUTPUT.value}')
    if UNCERTAIN.value:
        doubtful = labelling.least_certain(labelled, UNCERTAIN_COUNT.value)
        write(UNCERTAIN.value, [teacher.doubtful_record(each) for each in doubtful])
        log(f'wrote the {len(doubtful):,} least certain texts to {UNCERTAIN.value}, for a person to label')


def write(path: str, records: list[dict]) -> None:
    """Writes JSON lines, whole or not at all."""
    lines = ''.join(json.dumps(record, ensure_ascii=False) + '\n' for record in records)
    write_whole(Path(path), lines.encode('utf-8', 'surrogatepass'))


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
