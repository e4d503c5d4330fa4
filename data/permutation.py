"""A random order of any number of rows, without a list of them.

`permute` maps positions to rows one by one, so the order of a trillion rows takes no memory and
a restart needs nothing but the position. It is a balanced Feistel network on two digits in base
⌈√size⌉ (additions modulo the base instead of exclusive or, so that sizes need not be powers of
two), with cycle walking for the few values past the end.
Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
"""

from __future__ import annotations

import hashlib
from math import isqrt

import numpy as np

ROUNDS = 6


def permute(index: np.ndarray, size: int, seed: tuple[int | str, ...]) -> np.ndarray:
    """Returns int64 π(index) for the permutation π of 0 … size-1 that `seed` names.

    index: integers in [0, size), any shape; size: 1 … 2⁶².
    """
    index = np.asarray(index, np.uint64)
    base = np.uint64(isqrt(size - 1) + 1)  # base² ≥ size
    keys = np.frombuffer(hashlib.blake2b(repr(seed).encode(), digest_size=8 * ROUNDS).digest(), '<u8')
    result = _encrypt(index.reshape(-1), base, keys)
    while (outside := result >= size).any():
        result[outside] = _encrypt(result[outside], base, keys)
    return result.astype(np.int64).reshape(index.shape)


def _encrypt(index: np.ndarray, base: np.uint64, keys: np.ndarray) -> np.ndarray:
    high, low = np.divmod(index, base)
    for key in keys:
        high, low = low, (high + _mix(low ^ key) % base) % base
    return high * base + low


def _mix(x: np.ndarray) -> np.ndarray:
    """Scrambles 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
