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


@dataclass(frozen=True)
class Bursts:
    """First two spikes of every neuron under very strong drive.

    Attributes:
        latency: from stimulus to the first spike, mean (s) `[N]`. scatter: its standard deviation (s) `[N]`.
        interval: from the first to the second spike, mean (s) `[N]`.
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
    first, interval = np.where(there, times[0] - bench.start, 0.0), np.where(there, times[1], 0.0)
    enough = count > 1
    share = np.where(enough, count, np.nan)
    latency = first.sum(0) / share
    scatter = np.sqrt(np.where(there, (first - latency) ** 2, 0.0).sum(0) / (share - 1))
    return Bursts(latency, scatter, (interval.sum(0) - first.sum(0)) / share - bench.start, count)


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
