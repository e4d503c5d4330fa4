"""GloVe's preparation as text grows: words a second and memory, and the step that learns from the records.

  python -m benchmarks.glove --text=/data/english.txt [--megabytes=10,100]

Prepares the first so many megabytes of the text, each in a process of its own, whose memory is watched
together with that of its workers, and then times training steps. Counting holds only so many pairs in memory
(data/cooccurrences.py), so that memory must not grow with the text, once it is large enough to fill that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from absl import flags

from configs import command_line, glove
from configs.errors import UserError

TEXT = flags.DEFINE_string('text', None, 'A .txt file.', required=True)
MEGABYTES = flags.DEFINE_list('megabytes', ['10', '100'], 'How much of it; several with commas between.')
STEPS = flags.DEFINE_integer('steps', 100, 'Training steps to time.', lower_bound=20)


def run(command: list[str]) -> tuple[float, int]:
    """Runs a script; returns seconds and the most memory that it and its workers held, in bytes."""
    started, most, ended = time.perf_counter(), 0, threading.Event()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as child:
        watched = psutil.Process(child.pid)

        def watch() -> None:
            nonlocal most
            while not ended.wait(0.05):
                held = 0
                for process in [watched, *_children(watched)]:
                    try:
                        held += process.memory_full_info().uss
                    except psutil.Error:
                        continue
                most = max(most, held)

        thread = threading.Thread(target=watch)
        thread.start()
        status = child.wait()
        ended.set()
        thread.join()
    if status:
        raise UserError(f'{" ".join(command)} ended with status {status}.')
    return time.perf_counter() - started, most


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    """Prints a line for each size of text."""
    settings = f'--config={Path(glove.__file__)}'
    for size in map(int, MEGABYTES.value):
        with tempfile.TemporaryDirectory() as directory:
            text = Path(directory) / 'text.txt'
            with open(TEXT.value, 'rb') as file:
                content = file.read(size * 1_000_000)
            text.write_bytes(content.rpartition(b'\n\n')[0])
            options = [f'--config.data.source={text}', f'--config.data.path={directory}/prepared']
            seconds, most = run(['prepare.py', settings, *options])
            prepared = json.loads((Path(directory) / 'prepared' / 'manifest.json').read_text())
            words = prepared['train']['tokens']
            records = prepared['cooccurrences']['records']
            options += [
                f'--config.num_steps={STEPS.value}',
                '--config.checkpoint_every=0',
                '--config.log_every=10',
            ]
            run(['train.py', settings, f'--workdir={directory}/run', *options, '--config.sample_every=0'])
            lines = (Path(directory) / 'run' / 'metrics.jsonl').read_text().splitlines()
            rates = sorted(json.loads(line).get('tokens_per_second', 0) for line in lines[1:])
            print(
                f'{size} MB: {words:,} words prepared at {words / seconds:,.0f} a second, '
                f'{most / 1e6:,.0f} MB of memory; {records:,} records, '
                f'learnt at {rates[len(rates) // 2]:,.0f} a second',
                flush=True,
            )


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
