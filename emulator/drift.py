r"""Slow drift of potentials: an Ornstein-Uhlenbeck walk as a pure function of chip time.

    x(t) = sum_k a^k sqrt(1 - a^2) eps_(i - k),   a = exp(-1 / POINTS),   i = t * POINTS / tau

is a stationary walk of variance 1 on a lattice of `POINTS` points per correlation time. The independent normal
numbers eps are hashed from their lattice index; the walk is interpolated between points. A chip starts at its
calibration, so `drift_walk` returns the change since the calibration, x(t) - exp(-t / tau) x(0).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .layout import CIRCUITS
from .rng import fixed_normal_at

Array = npt.NDArray[np.float64]

POINTS = 16
"""Lattice points per correlation time."""
MEMORY = 8 * POINTS
"""Number of lattice points in the sum; the neglected weight is below exp(-8)."""


def drift_walk(key: int, time: float, tau: float) -> Array:
    """Return the walk of every circuit since the calibration `[512]`; its stationary variance is 1.

    Args:
        key: key of the random numbers, one for each walk.
        time: chip time since the calibration (s).
        tau: correlation time (s).
    """
    place = time / tau * POINTS
    first = int(place)
    fraction = place - first
    current = (1 - fraction) * _point(key, first) + fraction * _point(key, first + 1)
    walk: Array = current - np.exp(-time / tau) * _point(key, 0)
    return walk


@lru_cache(maxsize=256)
def _point(key: int, index: int) -> Array:
    a = np.exp(-1 / POINTS)
    weights = np.sqrt(1 - a**2) * a ** np.arange(MEMORY)
    places = (index + MEMORY - np.arange(MEMORY))[:, None] * CIRCUITS + np.arange(CIRCUITS)
    point: Array = weights @ fixed_normal_at(key, places.astype(np.uint64))
    return point
