"""Statistics of 512 circuits that a few bad ones do not move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

QUADRANTS = 4
TRIM = 0.05
"""Share left out on each side before a standard deviation is compared [C]."""


def trimmed_sd(values: Array) -> float:
    """Return the standard deviation without the outer 5 % on each side; numbers that are not finite do not count."""
    kept = np.sort(values[np.isfinite(values)])
    cut = int(len(kept) * TRIM)
    return float(np.std(kept[cut : len(kept) - cut]))


def spread(values: Array) -> float:
    """Return a standard deviation that a few bad neurons do not move: trimmed, rescaled to that of a normal."""
    return trimmed_sd(values) / TRIMMED_NORMAL


TRIMMED_NORMAL = 0.7893
"""Standard deviation of a standard normal distribution without its outer 5 % on each side."""


def within(values: Array) -> Array:
    """Return values without the means of their quadrants."""
    parts = values.reshape(QUADRANTS, -1)
    flat: Array = (parts - np.nanmedian(parts, axis=1, keepdims=True)).ravel()
    return flat


def correlation(x: Array, y: Array) -> float:
    """Return Pearson's correlation of the pairs that are finite and not among the outer 1 % of either."""
    good = np.isfinite(x) & np.isfinite(y)
    for values in (x, y):
        low, high = np.nanpercentile(values[np.isfinite(values)], [1, 99])
        good &= (values >= low) & (values <= high)
    return float(np.corrcoef(x[good], y[good])[0, 1])
