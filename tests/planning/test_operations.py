"""Operations of traced programs against the counts of arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives
from configs import gpt2, llama
from model.transformer import Transformer
from parallel.mesh import make_mesh
from planning import operations, step
from training.optimizer import make_optimizer, make_schedule
from training.state import abstract_state
from training.step import make_train_step


def traced(function, *shapes):
    return jax.jit(function).trace(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).jaxpr.jaxpr


def test_a_product_is_two_operations_for_each_term():
    assert operations.count(traced(jnp.matmul, (3, 5), (5, 7))) == 2 * 3 * 5 * 7
    batched = traced(lambda a, b: jnp.einsum('bij,bjk->bik', a, b), (4, 3, 5), (4, 5, 7))
    assert operations.count(batched) == 4 * 2 * 3 * 5 * 7


def test_loops_count_each_iteration_and_branches_the_dearest():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, length=9)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert operations.count(traced(loop, (4, 4))) == 9 * 2 * 4**3
    assert operations.count(traced(branch, (4, 4))) == 2 * 2 * 4**3


def test_what_is_computed_again_counts_again():
    def loss(x):
        return jnp.sum(jnp.sin(jnp.sin(x @ x) @ x))

    plain = operations.count(traced(jax.grad(loss), (4, 4)))
    again = operations.count(traced(jax.grad(jax.checkpoint(loss)), (4, 4)))
    assert again - plain == 2 * 2 * 4**3


def test_devices_count_along_the_axes_that_are_cut_by_hand():
    mesh = make_mesh({'data': 1, 'fsdp': 1, 'tensor': 1, 'context': 1})
    spec = jax.sharding.PartitionSpec('fsdp')

    def product(x):
        return jax.shard_map(lambda x: x @ x.T, in_specs=spec, out_specs=spec, axis_names={'fsdp'})(x)

    with jax.set_mesh(mesh):
        equations = traced(product, (4, 8))
    assert operations.count(equations) == 2 * 4 * 8 * 4
    (equation,) = [each for each in equations.eqns if each.primitive.name == 'shard_map']
    assert equation.params['newly_manual_axes'] == {'fsdp'}


def of_step(module, **changes):
    """(operations of the traced step, of the model by arithmetic, config) of a shrunk experiment."""
    config = module.get_config('smoke')
    config.model.dropout_rate = 0.0
    config.update_from_flattened_dict({'model.remat': 'none'} | changes)
    mesh = make_mesh(config.mesh)
    resolved, objective = step.model_config(config, 'cpu'), objectives.get(config.objective)
    model, optimizer, tokenizer = Transformer(resolved), make_optimizer(config), step.vocabulary(config)
    state = abstract_state(model, optimizer, mesh, seed=0, ema=False)
    batch = step.abstract_batch(config, objective, tokenizer, mesh)
    function = make_train_step(model, objective, config, optimizer, make_schedule(config))
    counted = operations.count(jax.jit(function).trace(state, batch).jaxpr.jaxpr)
    by_row = objectives.train_flops_per_row(objective, config, resolved, tokenizer)
    return counted, config.batch_size * by_row, config


@pytest.mark.parametrize('module', [gpt2, llama])
def test_the_step_does_what_arithmetic_says(module):
    counted, model, config = of_step(module)
    # Attention's backward pass computes the scores again: one product beside the model's six.
    scores = 2 * config.model.num_layers * config.batch_size * config.sequence_length**2
    assert counted == model + scores * config.model.embed_dim


def test_blocks_of_the_vocabulary_compute_the_logits_twice():
    once, _, config = of_step(llama)
    twice, _, _ = of_step(llama, **{'model.vocab_blocks': 2})
    tokens = config.batch_size * config.sequence_length
    assert twice - once == 2 * tokens * config.model.embed_dim * 512


def test_rematerialisation_computes_again_what_it_does_not_keep():
    none, _, config = of_step(gpt2)
    dots, full = (of_step(gpt2, **{'model.remat': remat})[0] for remat in ('dots', 'full'))
    width, tokens = config.model.embed_dim, config.batch_size * config.sequence_length
    attention = 4 * config.model.num_layers * tokens * config.sequence_length * width
    assert dots - none == attention, 'only attention: all projections are kept'
    # Full: also q, k, v, out and up; the last projection's result is needed by nobody.
    projections = 2 * config.model.num_layers * tokens * (4 * width**2 + 4 * width**2)
    assert full - none == attention + projections


def test_batches_have_the_shapes_that_objectives_make():
    config = llama.get_config('smoke')
    mesh = make_mesh(config.mesh)
    batch = step.abstract_batch(config, objectives.get('causal'), step.vocabulary(config), mesh)
    assert set(batch) == {'tokens_BL', 'targets_BL', 'weights_BL', 'segments_BL', 'positions_BL'}
    assert {leaf.shape for leaf in batch.values()} == {(config.batch_size, config.sequence_length)}
    assert batch['weights_BL'].dtype == np.float32
