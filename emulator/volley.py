"""Loss of recorded spikes: the event bus of a quadrant records a limited number of spikes per window.

The spikes still reach their targets on the chip; only their records are lost. The records of a volley that survive are
drawn by a hash of trial, neuron and window.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .preset import VOLLEY_WINDOW
from .rng import splitmix64
from .trials import Events


def _exceeds(
    capacity: int,
    sample: npt.NDArray[np.int64],
    unit: npt.NDArray[np.int64],
    time: npt.NDArray[np.float32],
    quadrant: npt.NDArray[np.int64],
    window: float,
) -> bool:
    """Return whether more than `capacity` spikes of one trial and quadrant lie in one window.

    Args:
        capacity: largest number of spikes of each quadrant 0..3 in a window.
        sample: index of the trial of each spike `[S]`, grouped.
        unit: neuron of each spike `[S]`.
        time: time of each spike (s) `[S]`.
        quadrant: quadrant of each neuron `[N]`.
        window: length of a window (s).
    """
    spikes = len(time)
    latest = 0.0
    begin = 0
    for i in range(spikes):
        latest = max(latest, np.float64(time[i]))
    counts = np.zeros((4, int(np.floor(latest / window)) + 1), np.int64)
    while begin < spikes:
        end = begin
        while end < spikes and sample[end] == sample[begin]:
            end += 1
        if end - begin > capacity:
            for i in range(begin, end):
                index = int(np.floor(np.float64(time[i]) / window))
                counts[quadrant[unit[i]], index] += 1
                if counts[quadrant[unit[i]], index] > capacity:
                    return True
            for i in range(begin, end):  # resets only the touched counts: there may be many windows
                counts[quadrant[unit[i]], int(np.floor(np.float64(time[i]) / window))] = 0
        begin = end
    return False


volley_exceeds: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(_exceeds)
"""`_exceeds`, compiled."""


def crowded_spikes(spikes: Events, quadrant: Tensor, capacity: int) -> Tensor | None:
    """Return the mask `[S]` of spikes whose trial and quadrant have more than `capacity` spikes.

    The result is None if no window has more than `capacity` spikes, as in most runs. This check costs less than
    drawing the surviving spikes.

    Args:
        spikes: spikes of all trials, times in seconds.
        quadrant: quadrant of each neuron `[N]`.
        capacity: number of spikes that a quadrant can record per `VOLLEY_WINDOW`.
    """
    on_cpu = spikes.time.device.type == "cpu"
    if on_cpu and not volley_exceeds(capacity, *(part.numpy() for part in (*spikes, quadrant)), VOLLEY_WINDOW):
        return None
    place = spikes.sample * 4 + quadrant[spikes.unit]
    crowded = (torch.bincount(place) > capacity)[place]
    if not on_cpu:
        if not bool(crowded.any()):
            return None
        window = _windows(spikes.time[crowded])
        volleys = place[crowded] * (window.max() + 1) + window
        if int(torch.unique(volleys, return_counts=True)[1].max()) <= capacity:
            return None
    return crowded


def _windows(time: Tensor) -> Tensor:
    """Return the window of each spike."""
    return torch.floor(time.double() / VOLLEY_WINDOW).long()


def surviving_spikes(
    sample: Tensor, quadrant: Tensor, time: Tensor, capacity: int, draw: npt.NDArray[np.uint64]
) -> Tensor | None:
    """Return the mask `[S]` of recorded spikes; None if all are recorded.

    Args:
        sample: index of the trial of each spike `[S]`.
        quadrant: quadrant of each spike `[S]`.
        time: time of each spike (s) `[S]`.
        capacity: number of spikes that a quadrant can record per `VOLLEY_WINDOW`.
        draw: random word for the trial and neuron of each spike `[S]`.
    """
    window = _windows(time)
    windows = int(window.max()) + 1
    volley = ((sample * 4 + quadrant) * windows + window).numpy()
    _, index, counts = np.unique(volley, return_inverse=True, return_counts=True)
    if counts.max() <= capacity:
        return None
    draw = splitmix64(0, draw + window.numpy().astype(np.uint64))  # other survivors in the next volley of a trial
    order = np.lexsort((draw, index))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(index), np.int64)
    rank[order] = np.arange(len(index)) - first[index[order]]
    return torch.from_numpy(rank < capacity)
