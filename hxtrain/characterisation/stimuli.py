"""Stimuli of a requested size for every neuron at once, by the choice of each neuron's integer weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .response import MembraneModel

Array = npt.NDArray[np.float64]


def groups(inputs: int, count: int) -> npt.NDArray[np.bool_]:
    """Return `count` disjoint groups of equally many inputs, spread over all circuits: bool `[count, J]`."""
    size = inputs // count
    index = np.arange(inputs)
    masks: npt.NDArray[np.bool_] = (index % count == np.arange(count)[:, None]) & (index // count < size)
    return masks


def weights_for_peaks(
    model: MembraneModel, fired: npt.NDArray[np.bool_], heights: Array, weight_max: int
) -> tuple[npt.NDArray[np.int64], Array]:
    """Choose integer weights with which disjoint groups of inputs raise membranes to requested peaks.

    Args:
        model: fitted neurons.
        fired: mask of the inputs in each group `[L, J]`.
        heights: requested peaks above leak `[L, N]` (trace units).
        weight_max: largest weight.

    Returns:
        Weights `[N, J]`, and the peaks `[L, N]` that the model expects. They deviate from the requested peaks, since
        weights are integers and limited.
    """
    ones = np.ones((heights.shape[1], fired.shape[1]))
    per_weight = model.charges(ones, fired.astype(float))
    weight = heights / np.maximum(model.peak(per_weight), 1e-3)
    for _ in range(2):
        weight = np.clip(weight, 0, weight_max)
        reached = model.peak(per_weight * weight[:, None, None])
        weight = weight * heights / np.maximum(reached, 1e-3)
    weights = _round(np.clip(weight, 0, weight_max), fired)
    return weights, model.peak(model.charges(weights.astype(float), fired.astype(float)))


def _round(weight: Array, fired: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return integers `[N, J]` whose sum over each group is as close as possible to that of `weight` `[L, N]`."""
    rank = np.where(fired, fired.cumsum(1) - 1, 0)
    total = np.rint(weight * fired.sum(1)[:, None]).astype(np.int64)
    base, remainder = np.divmod(total, fired.sum(1)[:, None])
    integers = np.zeros((weight.shape[1], fired.shape[1]), np.int64)
    for group, ranks, low, extra in zip(fired, rank, base, remainder, strict=True):
        integers[:, group] = low[:, None] + (ranks[group] < extra[:, None])
    return integers
