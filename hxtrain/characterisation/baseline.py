"""The quiet membrane: leak, noise, and the range of the traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bench import Bench

Array = npt.NDArray[np.float64]
LAGS = 5
"""Number of lags of the autocovariance: 0 to 4 trace intervals."""
ROUNDING = 1 / 12
"""Variance of rounding to whole codes."""
LINEAR_MARGIN = 11.0
"""Distance from the end of the traces' range above which a sample counts as linear (trace units).
The last 10 LSB before a rail are compressed (`docs/emulator.md`); the visible end lies 2.4 LSB inside."""
COMPRESSED_END = 10.0 * (1 - 16 / 21)
"""Distance of the visible end of the range from the rail: `10 (1 - pade_tanh(1))` (trace units)."""
ADC_MAX = 255


@dataclass(frozen=True)
class Baseline:
    """The quiet membrane.

    Attributes:
        leak: mean code `[N]` (trace units).
        sd: standard deviation of single samples `[N]` (trace units).
        autocovariance: autocovariance by lag in trace intervals `[LAGS, N]` (trace units squared).
    """

    leak: Array
    sd: Array
    autocovariance: Array

    def noise(self, tau_mem: Array, dt: float) -> tuple[Array, Array]:
        """Return standard deviations `[N]` of membrane (an Ornstein-Uhlenbeck process with tau_mem) and single sample.

        Both have the limited precision of one neuron's quiet samples; means of their squares over neurons are precise.
        """
        decay = np.exp(-np.arange(1, LAGS)[:, None] * dt / tau_mem)
        membrane = (self.autocovariance[1:] * decay).sum(0) / (decay**2).sum(0)
        sample = self.autocovariance[0] - membrane - ROUNDING
        return np.sqrt(np.maximum(membrane, 0.0)), np.sqrt(np.maximum(sample, 0.0))


def measure_baseline(bench: Bench, trials: int = 160) -> Baseline:
    """Measure leak and noise on quiet trials without spiking.

    The first samples of a trial are left out, so that the initial state of a membrane has decayed.
    """
    start = bench.samples
    codes = bench.quiet(trials, spiking=False, samples=start + 24).codes[:, start - 1 :].astype(np.float64)
    leak = codes.mean((0, 1))
    deviation = codes - leak
    last = codes.shape[1]
    covariance = [(deviation[:, : last - lag] * deviation[:, lag:]).mean((0, 1)) for lag in range(LAGS)]
    return Baseline(leak, np.sqrt(covariance[0]), np.stack(covariance))


@dataclass(frozen=True)
class TraceRange:
    """Ends of the traces' range: smallest and largest mean code that each neuron reaches `[N]`."""

    low: Array
    high: Array

    def linear(self, mean_codes: Array) -> npt.NDArray[np.bool_]:
        """Return the mask of mean codes `[..., N]` that are far enough from both ends not to be compressed."""
        inside: npt.NDArray[np.bool_] = (mean_codes > self.low + LINEAR_MARGIN) & (
            mean_codes < self.high - LINEAR_MARGIN
        )
        return inside

    @property
    def rails(self) -> tuple[float, float] | None:
        """Limits of the membranes (trace units, median); None if the traces end at the ADC's limits."""
        low, high = float(np.median(self.low)), float(np.median(self.high))
        if low < 1 and high > ADC_MAX - 1:
            return None
        return low - COMPRESSED_END, high + COMPRESSED_END


def measure_range(bench: Bench, trials: int = 12) -> TraceRange:
    """Drive the membranes against both rails: all inputs at once with the largest weight, without spiking."""
    largest = bench.capabilities.weight_max
    ends = []
    for sign in (-1, 1):
        weights = np.full((bench.neurons, bench.inputs), sign * largest)
        fired = np.ones((trials, bench.inputs), bool)
        mean = bench.run(weights, fired, np.zeros(trials), spiking=False).codes.mean(0)
        ends.append(mean.min(0) if sign < 0 else mean.max(0))
    return TraceRange(*ends)
