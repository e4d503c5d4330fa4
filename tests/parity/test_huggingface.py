"""Models against transformers itself: forwards, backwards, and what it reads of what Lathe writes."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model import huggingface, huggingface_export, tensor_files

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from tests.model.test_huggingface import open_model  # noqa: E402
from tests.parity import architectures  # noqa: E402


@pytest.fixture(params=architectures.CONFIGS)
def pair(request, tmp_path):
    """(the model in transformers, its directory, ours, our parameters)."""
    theirs = architectures.make(request.param)
    theirs.save_pretrained(tmp_path / 'theirs')
    return theirs, *open_model(tmp_path / 'theirs')


def make_batch(seed=0):
    tokens = np.random.default_rng(seed).integers(3, 61, (3, 40)).astype(np.int32)
    segments = np.ones_like(tokens)
    segments[1, 25:] = 0  # padding on the right
    return tokens, segments


def apply(ours, params, tokens, segments):
    """The logits; an encoder-decoder reads the tokens and is to repeat them."""
    inputs = {'tokens_BL': tokens, 'segments_BL': segments}
    if ours.config.encoder_layers:
        inputs = {
            'tokens_BL': jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
            'encoder_tokens_BS': tokens,
            'encoder_segments_BS': segments,
        }
    return ours.apply({'params': params}, **inputs)


def test_logits_are_the_same_with_padding(pair):
    theirs, ours, params = pair
    tokens, segments = make_batch()
    given = architectures.inputs(theirs, torch.from_numpy(tokens).long(), torch.from_numpy(segments))
    with torch.no_grad():
        expected = architectures.logits(theirs(**given)).numpy()
    logits = np.asarray(jax.jit(functools.partial(apply, ours))(params, tokens, segments))
    real = np.full(segments.shape, True) if ours.config.encoder_layers else segments > 0
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4)


def test_gradients_are_the_same(pair):
    theirs, ours, params = pair
    tokens, segments = make_batch()
    torch_tokens = torch.from_numpy(tokens).long()
    given = architectures.inputs(theirs, torch_tokens, torch.from_numpy(segments))
    shift = ours.config.structure == 'decoder'
    logits = architectures.logits(theirs(**given))
    labels, logits = (given['labels'][:, 1:], logits[:, :-1]) if shift else (given['labels'], logits)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    weights = np.asarray(labels != -100, np.float32)

    def loss(params):
        logits, targets = apply(ours, params, tokens, segments), tokens
        if shift:
            logits, targets = logits[:, :-1], targets[:, 1:]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return (losses * weights).sum() / weights.sum()

    weight_map = huggingface.weight_map(theirs.config.to_dict())
    gradients = dict(tensor_files.tensors(jax.jit(jax.grad(loss))(params), weight_map))
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None or parameter.grad.abs().max() == 0:  # not on the way to these logits
            continue
        # Relative to the largest of a tensor: sums of a hundred products in another order.
        expected, found = parameter.grad.numpy(), gradients[name]
        if name == 'model.shared.weight':  # torch.nn.Embedding keeps the vector of its padding_idx, 0
            expected, found = expected[1:], found[1:]
        atol = 1e-4 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=atol, err_msg=name)


def test_transformers_reads_what_lathe_writes(pair, tmp_path):
    theirs, ours, params = pair
    directory = tmp_path / 'ours'
    directory.mkdir()
    values = huggingface_export.config_json(ours.config)
    tensor_files.save(params, directory, huggingface.weight_map(values))
    special = {'pad_token_id': theirs.config.pad_token_id}
    if ours.config.encoder_layers:
        special['decoder_start_token_id'] = theirs.config.pad_token_id
    (directory / 'config.json').write_text(json.dumps(values | special))
    kind = getattr(transformers, values['architectures'][0])
    assert kind is type(theirs)
    again, report = kind.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    tokens, segments = map(torch.from_numpy, make_batch())
    given = architectures.inputs(theirs, tokens.long(), segments)
    with torch.no_grad():
        assert torch.equal(architectures.logits(again(**given)), architectures.logits(theirs(**given)))
