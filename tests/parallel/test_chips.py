"""Chips by the names that JAX gives them."""

from __future__ import annotations

import pytest

from parallel import chips


@pytest.mark.parametrize(
    ('kind', 'name', 'flops'),
    [
        ('TPU v4', 'TPU v4', 275e12),
        ('TPU v5 lite', 'TPU v5e', 197e12),
        ('TPU v5', 'TPU v5p', 459e12),
        ('TPU v5p', 'TPU v5p', 459e12),
        ('TPU v6 lite', 'TPU v6e', 918e12),
        ('TPU7x', 'Ironwood (half)', 1153.5e12),
        ('NVIDIA A100-SXM4-40GB', 'A100 40GB', 312e12),
        ('NVIDIA H100 80GB HBM3', 'H100 SXM', 989e12),
        ('NVIDIA H100 PCIe', 'H100 PCIe', 756e12),
        ('NVIDIA H200', 'H200 SXM', 989e12),
    ],
)
def test_kinds_are_known_by_their_longest_name(kind, name, flops):
    chip = chips.of_kind(kind)
    assert (chip.name, chip.flops) == (name, flops)


def test_what_is_in_no_table_is_unknown():
    assert chips.of_kind('TPU v1') is None
    assert chips.of_kind('cpu') is None
