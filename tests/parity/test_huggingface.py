"""Models against transformers itself: forwards, backwards, and what it reads of what Lathe writes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from model import huggingface, tensor_files

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


def test_logits_are_the_same_with_padding(pair):
    theirs, ours, params = pair
    tokens, segments = make_batch()
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(tokens).long(), attention_mask=torch.from_numpy(segments)
        ).logits.numpy()
    logits = np.asarray(jax.jit(ours.apply)({'params': params}, tokens, segments))
    real = segments > 0
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4)


def test_gradients_are_the_same(pair):
    theirs, ours, params = pair
    tokens, _ = make_batch()
    theirs(torch.from_numpy(tokens).long(), labels=torch.from_numpy(tokens).long()).loss.backward()

    def loss(params):
        logits = ours.apply({'params': params}, tokens[:, :-1])
        log_p = jax.nn.log_softmax(logits)
        return -np.float32(1) * jax.numpy.take_along_axis(log_p, tokens[:, 1:, None], axis=-1).mean()

    table = huggingface.table_of(theirs.config.to_dict())
    gradients = dict(tensor_files.tensors(jax.jit(jax.grad(loss))(params), table=table))
    for name, parameter in theirs.named_parameters():
        # Relative to the largest of a tensor: sums of a hundred products in another order.
        expected = parameter.grad.numpy()
        np.testing.assert_allclose(
            gradients[name], expected, atol=1e-4 * max(1, np.abs(expected).max()), err_msg=name
        )


def test_transformers_reads_what_lathe_writes(pair, tmp_path):
    theirs, ours, params = pair
    directory = tmp_path / 'ours'
    directory.mkdir()
    values = huggingface.config_json(ours.config)
    tensor_files.save(params, directory, table=huggingface.table_of(values))
    (directory / 'config.json').write_text(json.dumps(values))
    again, report = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    tokens = torch.from_numpy(make_batch()[0]).long()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, theirs(tokens).logits)
