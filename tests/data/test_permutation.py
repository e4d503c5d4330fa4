from __future__ import annotations

import numpy as np
import pytest

from data.permutation import permute


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 17, 100, 1023, 1024, 1025, 70_001])
def test_every_number_comes_once(size: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, ('seed', 1))), np.arange(size))


def test_part_of_the_positions_gives_the_same_numbers() -> None:
    whole = permute(np.arange(5000), 5000, ('seed', 1))
    at = np.array([[4999, 0], [77, 78]])
    assert np.array_equal(permute(at, 5000, ('seed', 1)), whole[at])
    assert permute(np.int64(77), 5000, ('seed', 1)) == whole[77]


def test_orders_of_large_sets_stay_in_range_and_differ_by_seed() -> None:
    size = 10**15 + 1
    index = np.arange(size - 1000, size)
    orders = [permute(index, size, ('seed', seed)) for seed in range(3)]
    for order in orders:
        assert order.min() >= 0
        assert order.max() < size
    assert len(np.unique(np.concatenate(orders))) == 3000


def test_each_number_is_equally_likely_in_each_place() -> None:
    counts = np.zeros((10, 10))
    for seed in range(1500):
        counts[np.arange(10), permute(np.arange(10), 10, ('seed', seed))] += 1
    # χ² with 81 degrees of freedom: 150 is exceeded by chance once in 200,000 times.
    assert ((counts - 150) ** 2 / 150).sum() < 150


def test_the_order_never_changes() -> None:
    # Written down once: positions in checkpoints mean these rows for ever.
    assert permute(np.arange(8), 1000, ('epoch', 0, 0)).tolist() == [986, 160, 870, 952, 216, 115, 611, 91]
