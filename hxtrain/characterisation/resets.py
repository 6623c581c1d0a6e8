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
"""Peak of the stimulus over threshold - leak: one spike for sure, and a large current that outlives it."""
GUARD = 0.12
"""Share of the refractory period left out at its start and end."""
SPREAD = 12
"""Inputs per circuit that share the stimulus."""
BELOW = 5.0
"""How far below leak and reset the threshold is assumed of a neuron that fires all the time (trace units)."""


@dataclass(frozen=True)
class Recovery:
    """Mean traces after a spike, relative to leak.

    Attributes:
        deviation, weight: mean trace and 1 / its standard error, 0 where not valid `[OFFSETS, T, N]`.
        since_release: time after the end of the refractory period `[OFFSETS, T, N]` (s).
        since_event: from the stimulus to that end `[OFFSETS, N]` (s).
        reset: relative to leak `[N]`.
        charge: of the stimulus in each circuit, for a gain of 1 `[A, N]` (weight LSB).
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
        """Return the model of `deviation`; tau_syn and gain are the excitatory ones `[A, N]`."""
        since = self.since_release - delay
        total: Array = self.reset * np.exp(-np.maximum(since, 0.0) / tau_mem)
        for charge, syn, factor in zip(self.charge, tau_syn, gain, strict=True):
            left = charge * factor * np.exp(-self.since_event / syn)
            total = total + response(since, tau_mem, syn, left[:, None], drive, nonlinearity)
        return total


@dataclass(frozen=True)
class Resets:
    """Reset potentials and what followed.

    Attributes:
        reset: trace units `[N]`; not a number where `count` is 0.
        count: samples within refractory periods, of which the reset is the mean `[N]`.
        release: from the first spike's refractory period to the second spike, mean (s) `[N]`; not a number where
            second spikes were rare.
        recovery: mean traces after a spike.
    """

    reset: Array
    count: npt.NDArray[np.int64]
    release: Array
    recovery: Recovery

    def free_running_threshold(self, leak: Array, tau_mem: Array) -> Array:
        """Return thresholds `[N]` of neurons that fire without stimulus, from their inter-spike intervals.

        After a spike the membrane goes from reset towards a leak above threshold. Where it fires again at once, the
        reset is above threshold, too; then all that is known is that the threshold lies below both.
        """
        risen = leak + (self.reset - leak) * np.exp(-self.release / tau_mem)
        rises = self.reset < risen - 1
        below = np.fmin(self.reset, leak) - BELOW
        threshold: Array = np.where(rises, np.fmin(risen, leak), below)
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
        bench: the device. model: predicts peaks. baseline, limits: of the traces.
        threshold: trace units `[N]`; neurons with an infinite one are not stimulated.
        repeats: trials per sub-sample offset.
    """
    caps = bench.capabilities
    height = np.where(np.isfinite(threshold), FACTOR * np.maximum(threshold - baseline.leak, 0.0), 0.0)
    fired = (np.arange(bench.inputs) % caps.inputs_per_circuit < SPREAD)[None]
    weights, _ = weights_for_peaks(model, fired, height[None], caps.weight_max)
    offsets = bench.offsets(OFFSETS * repeats)
    trials = bench.run(weights, np.repeat(fired, len(offsets), 0), offsets, spiking=True)
    first, second = trials.spike_times(2)
    codes, refractory = trials.codes.astype(np.float64), bench.target("refractory")
    since = bench.times[:, None] - first[:, None]  # [B, T, N], -inf where there was no spike
    held: npt.NDArray[np.bool_] = (since > GUARD * refractory) & (since < (1 - GUARD) * refractory)
    count = held.sum((0, 1))
    reset = np.where(count > 0, (codes * held).sum((0, 1)) / np.maximum(count, 1), np.nan)

    both = np.isfinite(second)
    frequent = both.mean(0) > 0.5
    interval = np.where(both, second, 0.0).sum(0) - np.where(both, first, 0.0).sum(0)
    release = np.where(frequent, interval / np.maximum(both.sum(0), 1), np.nan) - refractory

    by_offset = (repeats, OFFSETS, bench.neurons)
    first, second = first.reshape(by_offset), second.reshape(by_offset)
    sure = np.isfinite(first).all(0) & np.isfinite(reset)
    released = np.where(sure, np.where(np.isfinite(first), first, 0.0).mean(0) + refractory, 0.0)
    latest = np.where(sure, first.max(0), np.inf) + (1 + GUARD) * refractory
    earliest = second.min(0) - GUARD * refractory
    times = bench.times[:, None]
    mean = codes.reshape(repeats, OFFSETS, *codes.shape[1:]).mean(0)
    valid = (times > latest[:, None]) & (times < earliest[:, None]) & limits.linear(mean)
    relative = model.strength[:, 0] / np.repeat(model.gain[:, 0], caps.inputs_per_circuit, axis=0)
    per_input = weights.T * relative * fired[0][:, None]
    recovery = Recovery(
        deviation=mean - baseline.leak,
        weight=valid * np.sqrt(repeats) / np.maximum(baseline.sd, np.sqrt(1 / 12)),
        since_release=times - released[:, None],
        since_event=released - bench.start - bench.offsets(OFFSETS)[:, None],
        reset=np.where(np.isfinite(reset), reset - baseline.leak, 0.0),
        charge=per_input.reshape(bench.merged, -1, bench.neurons).sum(1),
    )
    return Resets(reset, count, release, recovery)
