"""What compilers are told: options that they know, and a user's word before ours."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from parallel import compiler


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_every_option_is_known(platform):
    # Those of TPUs are known to libtpu alone, which tests/planning/test_plan.py compiles with.
    told = compiler.OPTIONS[platform]
    assert jax.jit(lambda x: x + 1, compiler_options=told)(1) == 2
    with pytest.raises(Exception, match='No such compile option'):
        jax.jit(lambda x: x + 1, compiler_options=told | {'xla_gpu_enable_latency_hiding': True})(1)


@pytest.mark.parametrize(
    ('kind', 'platform', 'told'),
    [
        ('cpu', 'cpu', compiler.OPTIONS['cpu']),
        ('NVIDIA H100 80GB HBM3', 'gpu', compiler.OPTIONS['gpu']),
        ('TPU v6 lite', 'tpu', compiler.SPARSE_CORES),
        ('TPU v5', 'tpu', compiler.SPARSE_CORES),
        ('TPU v5 lite', 'tpu', {}),
    ],
)
def test_options_are_of_the_device_or_its_platform(kind, platform, told, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '')
    device = SimpleNamespace(device_kind=kind, platform=platform)
    assert compiler.options(SimpleNamespace(devices=np.array([device]))) == told


@pytest.mark.parametrize('variable', ['XLA_FLAGS', 'LIBTPU_INIT_ARGS'])
def test_flags_of_the_environment_go_before(variable, monkeypatch):
    mesh = jax.make_mesh((1,), ('data',), devices=jax.devices()[:1])
    monkeypatch.setenv('XLA_FLAGS', '')
    assert compiler.options(mesh) == compiler.OPTIONS['cpu']
    monkeypatch.setenv(variable, '--xla_backend_optimization_level=2')
    assert compiler.options(mesh) == {}
