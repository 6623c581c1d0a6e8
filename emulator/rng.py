"""Counter-based random numbers: the same on every machine, in any order, in any batch.

A number is a pure function of its purpose (a key) and its place (a counter); there is no state that advances. Two
kinds are needed:

* the fixed pattern of a chip: `fixed_normal(key, n)`, from the splitmix64 sequence
  (Steele, Lea, Flood 2014);
* temporal noise inside the simulation: `word(counter, key0, key1)`, two rounds of a
  32-bit avalanche hash, whose halves index a table of normal quantiles.

The table is computed with `statistics.NormalDist`, rounded to 2^-14, so neither numpy
nor torch versions nor vector units can change a chip or its noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

TABLE_BITS = 16
_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


@lru_cache(maxsize=4096, typed=True)  # keys of noise are asked for in every run; typed: 1 and 1.0 differ in print
def derive_key(*parts: Hashable) -> int:
    """Return a 64-bit key for any sequence of printable parts (SHA-256)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def splitmix64(key: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return one 64-bit word per counter, for a 64-bit key."""
    z = counters * np.uint64(_GOLDEN) + np.uint64((key + _GOLDEN) & _MASK64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@cache
def normal_table() -> npt.NDArray[np.float32]:
    """Return the 2^16 mid-point quantiles of the standard normal, float32, read-only."""
    half = 1 << (TABLE_BITS - 1)
    inverse = NormalDist().inv_cdf
    upper = np.array([inverse(0.5 + (i + 0.5) / (2 * half)) for i in range(half)])
    upper = np.round(upper * 2**14) / 2**14
    table = np.concatenate([-upper[::-1], upper]).astype(np.float32)
    table.setflags(write=False)
    return table


def fixed_normal(key: int, *shape: int) -> npt.NDArray[np.float64]:
    """Return standard normal numbers of `shape`, a pure function of `key`."""
    return fixed_normal_at(key, np.arange(int(np.prod(shape)), dtype=np.uint64)).reshape(shape)


def fixed_normal_at(key: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return one standard normal number per counter, a pure function of `key` and counter."""
    words = splitmix64(key, counters)
    return normal_table()[words >> np.uint64(64 - TABLE_BITS)].astype(np.float64)


def fixed_uniform(key: int, *shape: int) -> npt.NDArray[np.float64]:
    """Return numbers of `shape` uniform in 0 <= x < 1, a pure function of `key`."""
    words = splitmix64(key, np.arange(int(np.prod(shape)), dtype=np.uint64))
    return uniform(words).reshape(shape)


def uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return numbers uniform in 0 <= x < 1 from 64-bit words."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample_keys(run_key: int, clock: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return the two 32-bit keys `[B, 2]` of each sample from its place on the chip's clock."""
    words = splitmix64(run_key, clock)
    low = (words & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.stack([low, (words >> np.uint64(32)).astype(np.uint32)], axis=1)
