"""Records what transformers computes with the tiny models, for tests that run without it.

  python -m tests.parity.record

Writes tests/references/NAME/: config.json and model.safetensors as transformers saves them, and
expected.npz with tokens and attention_mask [2, 40], logits, the loss over what is not masked, and 24 greedy
tokens that follow the first row's first 8.
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
        mask = torch.ones_like(tokens)
        mask[1, 30:] = 0
        given = architectures.inputs(model, tokens, mask)
        with torch.no_grad():
            logits = architectures.logits(model(**given))
            greedy = np.zeros((1, 0), np.int32)
            if model.can_generate():
                first = 1 if model.config.is_encoder_decoder else 8
                options = {'do_sample': False, 'eos_token_id': None, 'pad_token_id': 0}
                greedy = model.generate(tokens[:1, :8], max_new_tokens=24, **options)[:, first:].numpy()
        labels = given['labels']
        if not model.config.is_encoder_decoder and model.can_generate():
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        else:
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        np.savez_compressed(
            directory / 'expected.npz',
            tokens=tokens.numpy().astype(np.int32),
            attention_mask=mask.numpy().astype(np.int32),
            logits=logits.numpy(),
            loss=loss.numpy(),
            greedy=greedy[0].astype(np.int32),
        )


if __name__ == '__main__':
    main()
