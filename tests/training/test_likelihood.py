"""Log-probabilities of many continuations are those of each alone, whatever they are computed with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from configs.errors import UserError
from model import families
from model.transformer import Transformer
from training import likelihood

ROOT = Path(__file__).parents[2]
MAX_LENGTH, VOCABULARY = 48, 40
RANDOM = np.random.default_rng(0)


def ids(count: int) -> list[int]:
    return RANDOM.integers(0, VOCABULARY, count).tolist()


SHARED = ids(9)
PAIRS = [
    *(
        (ids(context), ids(asked))
        for context, asked in ((1, 1), (20, 3), (5, 30), (47, 1), (48, 48), (90, 5))
    ),
    *((SHARED, [token]) for token in (3, 9, 3)),  # one row: they differ in the last token at most
    (SHARED[:-2], [*SHARED[-2:], 7]),  # and this is the same row, cut elsewhere
    (ids(4), []),
]


def tiny() -> tuple[Transformer, dict]:
    """A random LLaMA, in which scales matter too."""
    config = base.get_config()
    config.sequence_length, config.compute_dtype = MAX_LENGTH, 'float32'
    config.model.update({'family': 'llama', 'num_layers': 2, 'embed_dim': 16, 'num_heads': 4})
    model = Transformer(families.resolve(config, vocab_size=VOCABULARY))
    boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    leaves, tree = jax.tree.flatten(nn.unbox(boxed)['params'])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(tree, noise)


@pytest.fixture(scope='module')
def model() -> tuple[Transformer, dict]:
    return tiny()


@pytest.fixture(scope='module')
def next_token(model):
    """ids → log p of each id after them, float64, by one forward pass over a row of their own."""
    apply = jax.jit(lambda tokens: model[0].apply({'params': model[1]}, tokens))

    def compute(known: list[int]) -> np.ndarray:
        row = np.zeros((1, MAX_LENGTH), np.int32)  # what follows cannot be seen
        row[0, : len(known)] = known
        logits = np.asarray(apply(row)[0, len(known) - 1], np.float64)
        return logits - np.log(np.exp(logits).sum())

    return compute


def test_every_pair_has_the_log_probability_that_it_has_alone(model, next_token):
    found = dict(likelihood.score(*model, PAIRS))
    assert sorted(found) == list(range(len(PAIRS)))
    for number, (context, continuation) in enumerate(PAIRS):
        known, total = [*context, *continuation][-MAX_LENGTH - 1 :], 0.0
        for index in range(len(known) - len(continuation), len(known)):
            total += next_token(known[:index])[known[index]]
        assert found[number][0] == pytest.approx(total, abs=1e-4)  # float32, sums of up to 48


def test_greedy_is_what_has_the_likeliest_token_each_time(model, next_token):
    context = ids(6)
    best = []
    for _ in range(5):
        best.append(int(next_token(context + best).argmax()))
    nearly = [*best[:2], (best[2] + 1) % VOCABULARY, *best[3:]]
    found = dict(likelihood.score(*model, [(context, best), (context, nearly), (context, [])]))
    assert [found[number][1] for number in range(3)] == [True, False, True]


def test_windows_score_each_token_once_with_all_the_context_that_fits():
    text = [*range(10)]
    assert list(likelihood.windows(text, -1, 4)) == [
        ([-1], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]
    for size in range(11):
        for max_length in (1, 2, 5, 20):
            pairs = list(likelihood.windows(text[:size], -1, max_length))
            assert [token for _, continuation in pairs for token in continuation] == text[:size]
            assert all(len([*context, *asked][:-1]) == min(max_length, size) for context, asked in pairs)


def test_pairs_that_differ_in_the_last_token_alone_are_read_once():
    ((shape, rows),) = likelihood.group(PAIRS[6:10], MAX_LENGTH).items()
    assert shape == (32, 8)
    assert [sorted(row.asked) for row in rows] == [[0, 1, 2, 3]]


def test_few_shapes_are_compiled_for_pairs_of_all_lengths():
    pairs = [(ids(RANDOM.integers(1, 1500)), ids(RANDOM.integers(1, 200))) for _ in range(300)]
    groups = likelihood.group(pairs, 1000)
    assert sum(len(rows) for rows in groups.values()) == 300
    assert {length for length, _ in groups} <= {32, 64, 128, 256, 512, 1000}
    assert {scored for _, scored in groups} <= {8, 32, 64, 128, 256, 512}  # or all of a row


def test_batches_keep_within_memory():
    assert likelihood.batch_rows(1024, 8, 50_000, wanted=1000) == 8
    assert likelihood.batch_rows(1024, 1024, 50_000, wanted=1000) == 4  # 0.8 GB of logits
    assert likelihood.batch_rows(64, 8, 50_000, wanted=5) == 8
    assert likelihood.batch_rows(100_000, 100_000, 250_000, wanted=5) == 1


def test_a_text_to_score_that_is_longer_than_the_model_is_refused(model):
    with pytest.raises(UserError, match=r'49 tokens.*max_length=48'):
        dict(likelihood.score(*model, [([1], ids(49))]))


ON_A_MESH = """
import json, jax
from parallel.mesh import make_mesh
from tests.training.test_likelihood import PAIRS, tiny
from training import building, likelihood, run

mesh = make_mesh({'data': 2, 'fsdp': 4, 'tensor': 1, 'context': 1})
jax.set_mesh(mesh)
model, params = tiny()
layout = building.abstract_params(model, mesh)
params = jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), params, layout)
print(json.dumps(sorted(likelihood.score(model, params, PAIRS))))
"""


def test_eight_devices_find_the_same(model):
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=8',
    }
    done = subprocess.run(
        [sys.executable, '-c', ON_A_MESH], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'Involuntary full rematerialization' not in done.stderr
    for (number, (log_p, greedy)), expected in zip(
        json.loads(done.stdout), sorted(likelihood.score(*model, PAIRS)), strict=True
    ):
        assert (number, greedy) == (expected[0], expected[1][1])
        assert log_p == pytest.approx(expected[1][0], abs=1e-4)
