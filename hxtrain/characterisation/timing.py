"""Timing of spikes: jitter and refractory period, from bursts under very strong drive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bench import Bench
from .thresholds import BLOCK

Array = npt.NDArray[np.float64]
PARTS = 4
"""Number of parts in which neurons are driven, every `PARTS`-th one at a time: a chip records few spikes at once."""
MAD_TO_SD = 1.4826
"""Standard deviation over the median absolute deviation, for normal numbers."""


@dataclass(frozen=True)
class Bursts:
    """First two spikes of every neuron under very strong drive.

    Attributes:
        latency: median time from stimulus to the first spike `[N]` (s).
        scatter: standard deviation of the latency, from its median absolute deviation, since records of spikes may be
            lost `[N]` (s).
        interval: median time from the first to the second spike `[N]` (s).
        count: number of trials with both spikes `[N]`; the other attributes are NaN if it is below 2.
    """

    latency: Array
    scatter: Array
    interval: Array
    count: npt.NDArray[np.int64]


def measure_bursts(bench: Bench, trials: int = BLOCK) -> Bursts:
    """Drive neurons with all inputs at once, with the largest weight."""
    fired = np.ones((trials, bench.inputs), bool)
    times = np.full((2, trials, bench.neurons), np.inf)
    for part in range(PARTS):
        chosen = np.arange(bench.neurons) % PARTS == part
        weights = np.where(chosen[:, None], bench.capabilities.weight_max, 0) * np.ones(bench.inputs, np.int64)
        bench.align(BLOCK, spiking=True)
        spike_times = bench.run(weights, fired, np.zeros(trials), spiking=True).spike_times(2)
        times[:, :, chosen] = spike_times[:, :, chosen]
    is_complete = np.isfinite(times[1])
    count = is_complete.sum(0)
    is_complete &= count > 1
    latency = _median(times[0], is_complete) - bench.start
    scatter = MAD_TO_SD * _median(np.abs(times[0] - bench.start - latency), is_complete)
    with np.errstate(invalid="ignore"):  # both are infinite without spikes
        interval = _median(times[1] - times[0], is_complete)
    return Bursts(latency, scatter, interval, count)


def _median(values: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Return the median of the values in `mask` `[B, N]` over the trials `[N]`; NaN without values."""
    has_values = mask.any(0)
    masked = np.where(mask, values, np.where(has_values, np.nan, 0.0))
    median: Array = np.where(has_values, np.nanmedian(masked, axis=0), np.nan)
    return median


def spike_jitter(bench: Bench, bursts: Bursts, height: Array, membrane_noise: float) -> Array:
    """Return the noise of a spike's time `[N]` (s): the scatter without the parts of time stamps and membrane noise.

    A membrane that rises by `height` (threshold - leak, trace units) within the latency turns membrane noise into
    scatter by its slope. Neurons without spikes get NaN.
    """
    by_membrane = membrane_noise * bursts.latency / height
    by_stamp = bench.capabilities.timestamp_resolution / np.sqrt(12)
    jitter: Array = np.sqrt(np.maximum(bursts.scatter**2 - by_membrane**2 - by_stamp**2, 0.0))
    return jitter


def refractory_period(bursts: Bursts, leak: Array, reset: Array, threshold: Array) -> Array:
    """Return the refractory period `[N]` (s): the inter-spike interval without the rise from reset to threshold.

    Under drive that saturates the amplifiers, or is so strong that the rise is short, the second rise has the slope
    of the first. Neurons without two spikes get NaN.
    """
    rise = bursts.latency * (threshold - reset) / (threshold - leak)
    period: Array = bursts.interval - rise
    return period
