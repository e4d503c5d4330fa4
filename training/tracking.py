"""Where metrics go: metrics.jsonl always, loss.png, TensorBoard and Weights & Biases when asked."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.errors import UserError


class Tracker:
    """Writes the metrics of a run. Only the main process makes one.

    On resuming at `step`, lines of metrics.jsonl after it are dropped: those steps are made again.
    `facts` (code version, fingerprints, …) join the config in Weights & Biases, whose run is continued.
    """

    def __init__(self, workdir: Path, config: ConfigDict, *, step: int, facts: dict[str, Any]):
        self._path = workdir / 'metrics.jsonl'
        _truncate(self._path, step)
        self._file = self._path.open('a', encoding='utf-8')
        self._tensorboard = None
        if config.tensorboard:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(
                str(workdir / 'tensorboard'), purge_step=step + 1 if step else None
            )
        self._wandb = _start_wandb(workdir, config, facts) if config.wandb.mode != 'disabled' else None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Appends one record; visible to readers of the file at once."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({'step': step, **finite}) + '\n')
        self._file.flush()
        if self._tensorboard:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log({'step': step, **metrics}, step=step)

    def log_samples(self, step: int, samples: list[str]) -> None:
        """Shows texts that the model wrote after `step`; the files in RUN/samples are the run's own."""
        if self._tensorboard:
            self._tensorboard.add_text('samples', '\n\n'.join(samples), step)
        if self._wandb:
            import wandb

            self._wandb.log({'samples': wandb.Html('<pre>' + '\n\n'.join(samples) + '</pre>')}, step=step)

    def close(self, exit_code: int = 0) -> None:
        """Ends all records; Weights & Biases is told the exit status."""
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish(exit_code=exit_code)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Returns the records of a metrics.jsonl; a last line cut short by a kill is left out.

    Raises UserError for any other line that is no record.
    """
    records = []
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            record = None
        if not isinstance(record, dict) or not isinstance(record.get('step'), int):
            raise UserError(f'{path}:{number} is no record of metrics; mend the file, or move it away.')
        records.append(record)
    return records


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [record for record in read_metrics(path) if record['step'] <= step]
    beside = path.with_suffix('.tmp')
    beside.write_text(''.join(json.dumps(record) + '\n' for record in kept), encoding='utf-8')
    beside.replace(path)


def _start_wandb(workdir: Path, config: ConfigDict, facts: dict[str, Any]):
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            'wandb is not installed: pip install wandb, or --config.wandb.mode=disabled.'
        ) from error
    identity = workdir / 'wandb_run_id'
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex[:12])
    return wandb.init(
        id=identity.read_text().strip(),
        resume='allow',
        dir=str(workdir),
        mode=config.wandb.mode,
        project=config.wandb.project,
        name=config.wandb.name or workdir.name,
        group=config.wandb.group or None,
        tags=list(config.wandb.tags) or None,
        config=config.to_dict() | {'run': facts},
    )
