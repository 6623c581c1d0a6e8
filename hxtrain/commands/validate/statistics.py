"""Robust statistics of 512 circuits, insensitive to a few outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

QUADRANTS = 4
TRIM = 0.05
"""Share of outer values on each side that a standard deviation omits [C]."""


def trimmed_sd(values: Array) -> float:
    """Return the standard deviation of the finite values, without the outer 5 % on each side."""
    ordered = np.sort(values[np.isfinite(values)])
    cut = int(len(ordered) * TRIM)
    return float(np.std(ordered[cut : len(ordered) - cut]))


def spread(values: Array) -> float:
    """Return a robust standard deviation: trimmed, and rescaled so that it is exact for a normal distribution."""
    return trimmed_sd(values) / TRIMMED_NORMAL


TRIMMED_NORMAL = 0.7893
"""Standard deviation of a standard normal distribution without its outer 5 % on each side."""


def within(values: Array) -> Array:
    """Return values without the means of their quadrants."""
    parts = values.reshape(QUADRANTS, -1)
    flat: Array = (parts - np.nanmedian(parts, axis=1, keepdims=True)).ravel()
    return flat


def correlation(x: Array, y: Array) -> float:
    """Return Pearson's correlation of the pairs that are finite and not among the outer 1 % of either variable."""
    is_typical = np.isfinite(x) & np.isfinite(y)
    for values in (x, y):
        low, high = np.nanpercentile(values[np.isfinite(values)], [1, 99])
        is_typical &= (values >= low) & (values <= high)
    return float(np.corrcoef(x[is_typical], y[is_typical])[0, 1])
