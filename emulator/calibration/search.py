"""The search for codes: a noisy binary search over all circuits at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..cells import CODE_MAX
from ..rng import derive_key, fixed_uniform

Array = npt.NDArray[np.float64]

FIRST_STEP, LAST_STEP = 256, 4
REFINEMENTS = 6
"""Number of measurements near the end of the search that are averaged."""
SCATTER = 5
"""Largest deviation of the initial codes from the middle of the range: equal codes disturb each other."""


class SearchResult(NamedTuple):
    """Codes, and the mask of codes inside the range; the other codes hit its end."""

    codes: Array
    inside: npt.NDArray[np.bool_]


def search(error: Callable[[Array], Array], count: int, key: object) -> SearchResult:
    """Find the codes at which `error` vanishes, for `count` cells in parallel.

    The search proceeds bit by bit from the middle of the range. Six measurements nearby follow, each of which yields
    an estimate of the code. The result is the mean of these estimates, which reduces the noise of a single measurement
    and of writing a cell.

    Args:
        error: function that measures at the codes `[count]` and returns by how many codes (signed, approximate) they
            are too high `[count]`.
        count: number of cells.
        key: key of the random scatter of the initial codes.
    """
    scatter = np.floor(fixed_uniform(derive_key("search", key), count) * (2 * SCATTER + 1)) - SCATTER
    codes = CODE_MAX // 2 + 1 + scatter
    step = FIRST_STEP
    while step >= LAST_STEP:
        codes = np.clip(codes - np.sign(error(codes)) * step, 1, CODE_MAX)
        step //= 2
    estimates = []
    for _ in range(REFINEMENTS):
        codes = np.rint(codes)
        estimates.append(codes - np.clip(error(codes), -2 * LAST_STEP, 2 * LAST_STEP))
        codes = np.clip(np.mean(estimates, axis=0), 1, CODE_MAX)
    final = np.rint(np.clip(np.mean(estimates, axis=0), 1, CODE_MAX))
    return SearchResult(final, (final > 1 + LAST_STEP) & (final < CODE_MAX - LAST_STEP))
