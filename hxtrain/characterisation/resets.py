"""Reset potentials, and the membrane after a spike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .baseline import Baseline, TraceRange
from .bench import OFFSETS, Bench
from .response import MembraneModel, response
from .stimuli import weights_for_peaks

Array = npt.NDArray[np.float64]
FACTOR = 1.5
"""Peak of the stimulus over threshold - leak: certain to cause a spike, with a large current after it."""
GUARD = 0.12
"""Share of the refractory period that is excluded at its start and at its end."""
SPREAD = 12
"""Number of inputs per circuit that share the stimulus."""
FREE_RUNNING_GAP = 5.0
"""Assumed distance of the threshold below leak and reset in a neuron that fires all the time (trace units)."""


@dataclass(frozen=True)
class Recovery:
    """Mean traces after a spike, relative to leak.

    Attributes:
        deviation: mean trace relative to leak `[OFFSETS, T, N]` (trace units).
        weight: 1 / standard error of `deviation`, 0 for invalid samples `[OFFSETS, T, N]`.
        since_release: time since the end of the refractory period `[OFFSETS, T, N]` (s).
        since_event: time from the stimulus to the end of the refractory period `[OFFSETS, N]` (s).
        reset: reset potential relative to leak `[N]` (trace units).
        charge: charge of the stimulus in each circuit, for a gain of 1 `[A, N]` (weight LSB).
    """

    deviation: Array
    weight: Array
    since_release: Array
    since_event: Array
    reset: Array
    charge: Array

    def model(
        self, tau_mem: Array, tau_syn: Array, gain: Array, delay: Array, drive: float, nonlinearity: float
    ) -> Array:
        """Return the model of `deviation`, for excitatory tau_syn and gain `[A, N]`."""
        since = self.since_release - delay
        total: Array = self.reset * np.exp(-np.maximum(since, 0.0) / tau_mem)
        for charge, syn, factor in zip(self.charge, tau_syn, gain, strict=True):
            residual = charge * factor * np.exp(-self.since_event / syn)
            total = total + response(since, tau_mem, syn, residual[:, None], drive, nonlinearity)
        return total


@dataclass(frozen=True)
class Resets:
    """Reset potentials, and the recovery after spikes.

    Attributes:
        reset: reset potential `[N]` (trace units); NaN if `count` is 0.
        count: number of samples within refractory periods, whose mean is the reset `[N]`.
        release: mean time from the end of the first spike's refractory period to the second spike `[N]` (s); NaN if
            second spikes are rare.
        recovery: mean traces after a spike.
    """

    reset: Array
    count: npt.NDArray[np.int64]
    release: Array
    recovery: Recovery

    def free_running_threshold(self, leak: Array, tau_mem: Array) -> Array:
        """Return thresholds `[N]` of neurons that fire without stimulus, from their inter-spike intervals.

        After a spike the membrane moves from reset towards a leak above threshold. If it fires again at once, the
        reset is also above threshold, and the threshold is only known to lie below both.
        """
        end = leak + (self.reset - leak) * np.exp(-self.release / tau_mem)
        is_rising = self.reset < end - 1
        bound = np.fmin(self.reset, leak) - FREE_RUNNING_GAP
        threshold: Array = np.where(is_rising, np.fmin(end, leak), bound)
        return threshold


def measure_resets(
    bench: Bench,
    model: MembraneModel,
    baseline: Baseline,
    limits: TraceRange,
    threshold: Array,
    repeats: int = 25,
) -> Resets:
    """Measure the potential within refractory periods, and the recovery from it.

    Args:
        bench: device with the circuit to measure.
        model: fitted neurons, which predict peaks.
        baseline: leak and noise of the traces.
        limits: range of the traces.
        threshold: thresholds `[N]` (trace units); neurons with an infinite threshold are not stimulated.
        repeats: number of trials per sub-sample offset.
    """
    caps = bench.capabilities
    height = np.where(np.isfinite(threshold), FACTOR * np.maximum(threshold - baseline.leak, 0.0), 0.0)
    fired = (np.arange(bench.inputs) % caps.inputs_per_circuit < SPREAD)[None]
    weights, _ = weights_for_peaks(model, fired, height[None], caps.weight_max)
    offsets = bench.offsets(OFFSETS * repeats)
    trials = bench.run(weights, np.repeat(fired, len(offsets), 0), offsets, spiking=True)
    first, second = trials.spike_times(2)
    codes = trials.codes.astype(np.float64)
    refractory = bench.target("refractory")
    since = bench.times[:, None] - first[:, None]  # [B, T, N], -inf without a spike
    is_held: npt.NDArray[np.bool_] = (since > GUARD * refractory) & (since < (1 - GUARD) * refractory)
    count = is_held.sum((0, 1))
    reset = np.where(count > 0, (codes * is_held).sum((0, 1)) / np.maximum(count, 1), np.nan)

    has_two_spikes = np.isfinite(second)
    frequent = has_two_spikes.mean(0) > 0.5
    interval = np.where(has_two_spikes, second, 0.0).sum(0) - np.where(has_two_spikes, first, 0.0).sum(0)
    release = np.where(frequent, interval / np.maximum(has_two_spikes.sum(0), 1), np.nan) - refractory

    by_offset = (repeats, OFFSETS, bench.neurons)
    first, second = first.reshape(by_offset), second.reshape(by_offset)
    is_valid = np.isfinite(first).all(0) & np.isfinite(reset)
    release_time = np.where(is_valid, np.where(np.isfinite(first), first, 0.0).mean(0) + refractory, 0.0)
    latest = np.where(is_valid, first.max(0), np.inf) + (1 + GUARD) * refractory
    earliest = second.min(0) - GUARD * refractory
    times = bench.times[:, None]
    mean = codes.reshape(repeats, OFFSETS, *codes.shape[1:]).mean(0)
    valid = (times > latest[:, None]) & (times < earliest[:, None]) & limits.linear(mean)
    relative = model.strength[:, 0] / np.repeat(model.gain[:, 0], caps.inputs_per_circuit, axis=0)
    per_input = weights.T * relative * fired[0][:, None]
    recovery = Recovery(
        deviation=mean - baseline.leak,
        weight=valid * np.sqrt(repeats) / np.maximum(baseline.sd, np.sqrt(1 / 12)),
        since_release=times - release_time[:, None],
        since_event=release_time - bench.start - bench.offsets(OFFSETS)[:, None],
        reset=np.where(np.isfinite(reset), reset - baseline.leak, 0.0),
        charge=per_input.reshape(bench.merged, -1, bench.neurons).sum(1),
    )
    return Resets(reset, count, release, recovery)
