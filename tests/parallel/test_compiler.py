"""What compilers are told: options that they know, and a user's word before ours."""

from __future__ import annotations

import jax
import pytest

from parallel import compiler


@pytest.mark.parametrize('platform', compiler.OPTIONS)
def test_every_option_is_known(platform):
    told = compiler.OPTIONS[platform]
    assert jax.jit(lambda x: x + 1, compiler_options=told)(1) == 2
    with pytest.raises(Exception, match='No such compile option'):
        jax.jit(lambda x: x + 1, compiler_options=told | {'xla_gpu_enable_latency_hiding': True})(1)


def test_flags_of_the_environment_go_before(monkeypatch):
    mesh = jax.make_mesh((1,), ('data',), devices=jax.devices()[:1])
    monkeypatch.setenv('XLA_FLAGS', '')
    assert compiler.options(mesh) == compiler.OPTIONS['cpu']
    monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=2')
    assert compiler.options(mesh) == {}
