"""Sizes and costs against the arrays and the traced program themselves."""

from __future__ import annotations

import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from model import flops
from model.flops import count_parameters, train_flops_per_row


def dot_flops(jaxpr):
    """Sums 2 · (elements of the result) · (contracted elements) over a program, scans unrolled."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            lhs = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(lhs[i] for i in contracted)
        repeats = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += repeats * dot_flops(inner)
    return total


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_flops_equal_those_of_the_traced_gradient(make_model, family):
    model, params = make_model(family, num_kv_heads=2, num_layers=3)
    batch, length = 2, 24

    def loss(params, tokens):
        return jnp.sum(model.apply({'params': params}, tokens))

    traced = jax.make_jaxpr(jax.grad(loss))(params, np.zeros((batch, length), np.int32))
    config = model.config
    # The backward pass computes the attention scores again, which the model's count leaves out.
    scores = 2 * config.num_layers * config.num_heads * config.head_dim * length
    expected = batch * (train_flops_per_row(config, length) + length * scores)
    assert dot_flops(traced.jaxpr) == expected


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_parameters_are_counted(make_model, family):
    model, params = make_model(family)
    assert count_parameters(model.config) == sum(x.size for x in jax.tree.leaves(params))


def test_llama_7b_has_its_published_size(make_config):
    config = make_config(
        'llama',
        num_layers=32,
        embed_dim=4096,
        num_heads=32,
        mlp_dim=11008,
        vocab_size=32000,
        sequence_length=2048,
    )
    assert count_parameters(config) == 6_738_415_616
    assert flops.matmul_parameters(config) == 6_738_415_616 - 32000 * 4096 - 65 * 4096


def test_a_frozen_kernel_has_no_gradient_to_compute(make_model):
    model, params = make_model('llama', num_layers=3)
    batch, length, config = 2, 24, model.config

    def loss(learnt, frozen, tokens):
        blocks = params['blocks'] | {'mlp': frozen}
        return jnp.sum(model.apply({'params': learnt | {'blocks': blocks}}, tokens))

    learnt, frozen = {name: params[name] for name in params if name != 'blocks'}, params['blocks']['mlp']
    tokens = np.zeros((batch, length), np.int32)
    whole, part = (
        dot_flops(jax.make_jaxpr(jax.grad(loss, argnums=which))(learnt, frozen, tokens).jaxpr)
        for which in ((0, 1), 0)
    )
    count = lambda learnt: batch * train_flops_per_row(config, length, learnt=learnt)  # noqa: E731
    assert whole - part == count(lambda name: True) - count(lambda name: 'mlp' not in name)
