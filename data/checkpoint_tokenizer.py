"""The tokenizer of a trained model, found without reading the model."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError
from data import tokenizer
from data.fast_tokenizer import FastTokenizer
from data.hub import HUB, fetch_model
from data.tokenizer import Tokenizer

GGUF = '.gguf'
NEEDED = ('*.json', '*.model', '*.txt', '*.jinja')  # of a repository on the hub


def load(checkpoint: str) -> Tokenizer:
    """Returns the tokenizer of whatever --checkpoint takes.

    Args:
      checkpoint: `RUN`, `RUN@STEP`, a directory in Hugging Face's format, `hf:NAME` from the hub, FILE.gguf.

    Raises:
      UserError: when there is none, or it cannot be read.
    """
    path = Path(checkpoint)
    if checkpoint.startswith(HUB):
        return tokenizer.load(fetch_model(checkpoint, NEEDED))
    if path.suffix == GGUF and path.is_file():
        # Imported here: nothing else needs the library.
        from data import gguf_tokenizer

        files = gguf_tokenizer.files(gguf_tokenizer.open_reader(path), checkpoint)
        return FastTokenizer(files, checkpoint)
    if not path.is_dir():
        path = Path(checkpoint.rpartition('@')[0])
    if not path.is_dir() or path == Path():
        raise UserError(
            f'{checkpoint!r} is no model: give a --workdir of train.py, a directory in '
            "Hugging Face's format, FILE.gguf or hf:NAME."
        )
    of_run = path / 'tokenizer'
    return tokenizer.load(of_run if of_run.is_dir() else path)
