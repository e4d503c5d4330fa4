"""Adapters of a whole model: which parameters are learnt with them, and what is refused."""

from __future__ import annotations

import pytest

from configs import base
from configs.errors import UserError
from training import adapters, freezing

PARAMS = {
    'blocks': {'attention': {'query': {'kernel': 1, 'lora_a': 2, 'lora_b': 3}}, 'mlp': {'up': {'kernel': 4}}},
    'classifier': {'kernel': 5},
    'token_embedding': {'embedding': 6},
}


def test_adapters_and_heads_alone_are_learnt():
    config = base.get_config()
    config.lora.rank = 2
    learnt, frozen = freezing.split(PARAMS, freezing.learnt(config))
    assert freezing.named(learnt) == {
        'blocks/attention/query/lora_a': 2,
        'blocks/attention/query/lora_b': 3,
        'classifier/kernel': 5,
    }
    assert freezing.join(learnt, frozen) == PARAMS
    config.optimizer.frozen = ('classifier',)
    assert 'classifier' not in freezing.split(PARAMS, freezing.learnt(config))[0]


def test_targets_without_a_kernel_are_refused():
    adapters.check(PARAMS, ('query/kernel$',))
    with pytest.raises(UserError, match=r"lora.targets: 'qeury' matches no kernel of the blocks"):
        adapters.check(PARAMS, ('query', 'qeury'))
    with pytest.raises(UserError, match='mlp'):
        adapters.check(PARAMS, ('mlp/up/kernel',))
