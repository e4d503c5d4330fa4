"""Speed and memory of the data layer beside its peer, bare SentencePiece.

  python -m benchmarks.data [--text=FILE.txt] [--megabytes=64] [--memory_megabytes=0]

Measures, in one run on the same text: prepare.py from start to end against as many processes that
only encode; reading shards on one core; streaming raw text against one process that only encodes.
--memory_megabytes=2000 also prepares a file of that size and watches the memory of all processes.
The text is the embedded corpus, repeated, unless a file is given.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from configs import base
from data import loader, manifest, sources
from data.python_docs import documents

ROUNDS = 3  # alternating with the peer; the median counts, so that a busy machine disturbs both alike
DOCUMENTS_A_CALL = 256
KEYS = ('data.source', 'data.path', 'tokenizer.path')


def make_config(text: Path, directory: Path) -> ConfigDict:
    """Returns the default config, reading `text`."""
    config = base.get_config()
    config.data.source = str(text)
    config.data.path = str(directory)
    return config


def write_text(path: Path, given: str, size: int) -> None:
    """Writes `size` bytes of text: the file `given`, or the embedded corpus, again and again."""
    content = Path(given).read_bytes() if given else '\n\n'.join(text for _, text in documents()).encode()
    with open(path, 'wb') as file:
        while file.tell() < size:
            file.write(content + b'\n\n')


def encode_only(texts: list[str], model: str, clock: Callable[[], float]) -> tuple[float, int]:
    """Returns seconds (by `clock`) and tokens of encoding `texts` with nothing around it."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    started, tokens = clock(), 0
    for at in range(0, len(texts), DOCUMENTS_A_CALL):
        batch = texts[at : at + DOCUMENTS_A_CALL]
        tokens += sum(map(len, processor.encode(batch, return_type='numpy', num_threads=1)))
    return clock() - started, tokens


def prepare(config: ConfigDict, keys: Sequence[str] = KEYS) -> tuple[float, float]:
    """Runs prepare.py and returns seconds, and bytes of memory of all its processes at the peak.

    keys: of the config, what is not as in configs/base.py. Memory is proportional set
    size: pages that processes share count once.
    """
    flags = [f'--config.{key}={value}' for key, value in manifest.select(config, keys).items()]
    started, peak = time.perf_counter(), 0
    command = [sys.executable, 'prepare.py', '--config=configs/base.py', *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _memory(watched))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit('prepare.py failed')
    return time.perf_counter() - started, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue  # it ended in between
    return total


def measure_preparation(config: ConfigDict, texts: list[str], directory: Path) -> tuple[float, float]:
    """Returns MB/s of prepare.py (the tokenizer is there already) and of processes that only encode."""
    model = f'{config.data.path}/tokenizer/tokenizer.model'
    size = os.path.getsize(config.data.source)
    workers = os.cpu_count() or 1
    ours, peers = [], []
    for number in range(ROUNDS):
        again = make_config(Path(config.data.source), directory / f'again-{number}')
        again.tokenizer.path = model
        ours.append(size / prepare(again)[0])
        with multiprocessing.get_context('spawn').Pool(workers) as pool:
            shares = [(texts[worker::workers], model, time.perf_counter) for worker in range(workers)]
            pool.map(abs, range(workers))  # starting is not counted, nor is sending the text
            peers.append(size / max(seconds for seconds, _ in pool.starmap(encode_only, shares)))
    return float(np.median(ours)) / 1e6, float(np.median(peers)) / 1e6


def measure_reading(config: ConfigDict, tokens: int) -> float:
    """Returns tokens per second of shuffled rows from shards, in one thread."""
    batches = loader.load_unbuffered(config, 'train', slice(0, config.batch_size))
    stream = batches.batches(batches.initial_position())
    next(stream)
    started, read = time.perf_counter(), 0
    while read < tokens:
        read += next(stream)[0].size
    return read / (time.perf_counter() - started)


def measure_streaming(config: ConfigDict, texts: list[str], tokens: int) -> tuple[float, float]:
    """Returns tokens per second of streaming, in one thread, and of one that only encodes.

    Seconds are of the processor's time: a busy machine does not change their ratio.
    """
    config.data.mode = 'stream'
    batches = loader.load_unbuffered(config, 'train', slice(0, config.batch_size))
    stream = batches.batches(batches.initial_position())
    next(stream)
    texts = texts[: int(len(texts) * min(1, tokens / 4e6))]
    ours, peers = [], []
    for _ in range(ROUNDS):
        started, read = time.process_time(), 0
        while read < tokens:
            read += next(stream)[0].size
        ours.append(read / (time.process_time() - started))
        seconds, encoded = encode_only(
            texts, f'{config.data.path}/tokenizer/tokenizer.model', time.process_time
        )
        peers.append(encoded / seconds)
    return float(np.median(ours)), float(np.median(peers))


def main() -> None:
    """Prints a table of what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--text', default='', help='a .txt file; default: the embedded corpus')
    parser.add_argument('--megabytes', type=int, default=64)
    parser.add_argument('--memory_megabytes', type=int, default=0, help='0: memory is not measured')
    arguments = parser.parse_args()
    table = Table('measured', 'Lathe', 'peer: SentencePiece alone', 'ratio', 'goal')
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = directory / 'text.txt'
        write_text(text, arguments.text, arguments.megabytes * 10**6)
        config = make_config(text, directory / 'prepared')
        prepare(config)
        files = sources.find_files(config)
        texts = [
            document.text
            for split in sources.list_splits(files, config)
            for document in sources.read_split(split, config)
        ]
        ours, peer = measure_preparation(config, texts, directory)
        table.add_row('prepare.py, MB/s', f'{ours:.1f}', f'{peer:.1f}', f'{ours / peer:.2f}', '≥ 0.60')
        read = measure_reading(config, 50_000_000) / 1e6
        table.add_row('shards, one core, M tokens/s', f'{read:.0f}', '', '', '≥ 20')
        ours, peer = (speed / 1e6 for speed in measure_streaming(config, texts, 4_000_000))
        table.add_row(
            'stream, one thread, M tokens/s', f'{ours:.2f}', f'{peer:.2f}', f'{ours / peer:.2f}', '≥ 0.80'
        )
        if arguments.memory_megabytes:
            write_text(text, arguments.text, arguments.memory_megabytes * 10**6)
            seconds, peak = prepare(make_config(text, directory / 'large'))
            what = f'peak memory, {arguments.memory_megabytes} MB prepared in {seconds:.0f} s, MB'
            table.add_row(what, f'{peak / 1e6:.0f}', '', '', '< 1000')
    Console().print(table)


if __name__ == '__main__':
    main()
