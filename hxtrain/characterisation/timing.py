"""When neurons spike: jitter and refractory period, from bursts under very strong drive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bench import Bench
from .thresholds import BLOCK

Array = npt.NDArray[np.float64]
PARTS = 4
"""Neurons are driven in so many parts, every `PARTS`-th one at a time: a chip records only so many spikes at once."""
MAD_TO_SD = 1.4826
"""Standard deviation over the median absolute deviation, for normal numbers."""


@dataclass(frozen=True)
class Bursts:
    """First two spikes of every neuron under very strong drive.

    Attributes:
        latency: from stimulus to the first spike, median (s) `[N]`. scatter: its standard deviation, from the median
            absolute deviation (s) `[N]`: some records of spikes may be lost.
        interval: from the first to the second spike, median (s) `[N]`.
        count: trials with both `[N]`; the others are not a number where it is below 2.
    """

    latency: Array
    scatter: Array
    interval: Array
    count: npt.NDArray[np.int64]


def measure_bursts(bench: Bench, trials: int = BLOCK) -> Bursts:
    """Drive neurons with all inputs at once and the largest weight."""
    fired = np.ones((trials, bench.inputs), bool)
    times = np.full((2, trials, bench.neurons), np.inf)
    for part in range(PARTS):
        chosen = np.arange(bench.neurons) % PARTS == part
        weights = np.where(chosen[:, None], bench.capabilities.weight_max, 0) * np.ones(bench.inputs, np.int64)
        bench.align(BLOCK, spiking=True)
        found = bench.run(weights, fired, np.zeros(trials), spiking=True).spike_times(2)
        times[:, :, chosen] = found[:, :, chosen]
    there = np.isfinite(times[1])
    count = there.sum(0)
    there &= count > 1
    latency = _median(times[0], there) - bench.start
    scatter = MAD_TO_SD * _median(np.abs(times[0] - bench.start - latency), there)
    with np.errstate(invalid="ignore"):  # neither spike: infinite both
        interval = _median(times[1] - times[0], there)
    return Bursts(latency, scatter, interval, count)


def _median(values: Array, there: npt.NDArray[np.bool_]) -> Array:
    """Return the median over the trials `[N]` where there is a value `[B, N]`; not a number without any."""
    some = there.any(0)
    known = np.where(there, values, np.where(some, np.nan, 0.0))
    median: Array = np.where(some, np.nanmedian(known, axis=0), np.nan)
    return median


def spike_jitter(bench: Bench, bursts: Bursts, height: Array, membrane_noise: float) -> Array:
    """Return the noise of a spike's time `[N]` (s): the scatter without stamps and membrane noise.

    A membrane that rises by `height` (threshold - leak, trace units) within the latency turns membrane noise into
    scatter by its slope. Not a number where there were no spikes.
    """
    by_membrane = membrane_noise * bursts.latency / height
    by_stamp = bench.capabilities.timestamp_resolution / np.sqrt(12)
    jitter: Array = np.sqrt(np.maximum(bursts.scatter**2 - by_membrane**2 - by_stamp**2, 0.0))
    return jitter


def refractory_period(bursts: Bursts, leak: Array, reset: Array, threshold: Array) -> Array:
    """Return the refractory period `[N]` (s): the inter-spike interval without the rise from reset to threshold.

    Under drive that saturates the amplifiers, or is so strong that the rise is short, the second rise has the slope
    of the first. Not a number where there were no two spikes.
    """
    rise = bursts.latency * (threshold - reset) / (threshold - leak)
    period: Array = bursts.interval - rise
    return period
