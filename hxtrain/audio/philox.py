"""Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011), a pure function of a key and a counter.

The noise of a sample thereby depends on its seed, name, channel and time step alone, whatever is computed beside it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from hxtrain.neurons.jit import exact

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
INCREMENTS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
WORDS = 4
"""Number of random words that a counter gives."""


def random_key(seed: int, name: str) -> tuple[int, int]:
    """Return the two words of 32 bits that stand for a seed and the name of a sample."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@exact
def random_words(key: Any, row: Any, column: Any, words: Any) -> None:
    """Write the random numbers of a counter, uniform in (0, 1).

    Args:
        key: two words of 32 bits, uint64 [2].
        row: first word of the counter, uint64.
        column: second word of the counter, uint64.
        words: result, float64 [4].
    """
    a = column
    b = row
    c = np.uint64(0)
    d = np.uint64(0)
    left = key[0]
    right = key[1]
    for _ in range(ROUNDS):
        first = MULTIPLIERS[0] * a
        second = MULTIPLIERS[1] * c
        a = (second >> HALF) ^ b ^ left
        c = (first >> HALF) ^ d ^ right
        b = second & MASK
        d = first & MASK
        left = (left + INCREMENTS[0]) & MASK
        right = (right + INCREMENTS[1]) & MASK
    words[0] = (a + 0.5) / 4294967296.0
    words[1] = (b + 0.5) / 4294967296.0
    words[2] = (c + 0.5) / 4294967296.0
    words[3] = (d + 0.5) / 4294967296.0
