"""Records what transformers computes with the tiny models, for tests that run without it.

  python -m tests.parity.record

Writes tests/references/NAME/: config.json and model.safetensors as transformers saves them, and
expected.npz with tokens [2, 40], logits, the loss, and 24 greedy tokens that follow the first row's first 8.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from tests.parity import architectures

REFERENCES = Path(__file__).parents[1] / 'references'


def main() -> None:
    for name in architectures.CONFIGS:
        model = architectures.make(name)
        directory = REFERENCES / name
        shutil.rmtree(directory, ignore_errors=True)
        model.save_pretrained(directory)
        (directory / 'generation_config.json').unlink(missing_ok=True)
        tokens = torch.from_numpy(np.random.default_rng(0).integers(3, 61, (2, 40)))
        with torch.no_grad():
            output = model(tokens, labels=tokens)
            greedy = model.generate(
                tokens[:1, :8], max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        np.savez_compressed(
            directory / 'expected.npz',
            tokens=tokens.numpy().astype(np.int32),
            logits=output.logits.numpy(),
            loss=output.loss.numpy(),
            greedy=greedy[0, 8:].numpy().astype(np.int32),
        )


if __name__ == '__main__':
    main()
