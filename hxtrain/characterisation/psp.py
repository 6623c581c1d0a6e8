"""Post-synaptic potentials of every synapse: each input alone, both signs, spiking disabled.

One set of trials determines all properties of the synapses. Averages over all inputs of a circuit, sampled at several
sub-sample offsets, give the shape; a matched filter with the fitted shape gives each synapse's strength.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .baseline import LINEAR_MARGIN, Baseline, TraceRange
from .bench import OFFSETS, Bench

Array = npt.NDArray[np.float64]
Float = npt.NDArray[np.float32]
LARGEST_PSP = 32.0
"""Largest nominal peak of a single potential (trace units), within the linear range."""
HEADROOM = 40.0
"""Distance from the lower end of the linear range at which inhibition is measured (trace units)."""
LIFTERS = 3
"""Number of inputs that lift membranes without this headroom."""
LIFT_TRIALS = 32
"""Number of trials with the lift alone, per sub-sample offset."""


@dataclass(frozen=True)
class Psps:
    """Traces of single inputs.

    Attributes:
        weight: integer weight of the inputs.
        deviation: deviation from the trace without the input, float32 `[R, J, 2, T, N]` (trace units); repetition r
            has offset `r % OFFSETS`.
        valid: mask of the samples in the linear range `[OFFSETS, A, 2, T, N]`.
    """

    weight: int
    deviation: Float
    valid: npt.NDArray[np.bool_]

    @property
    def mean(self) -> Array:
        """Mean over the inputs of a circuit `[OFFSETS, A, 2, T, N]` (trace units)."""
        repeats, inputs, _, samples, neurons = self.deviation.shape
        merged = self.valid.shape[1]
        shape = (repeats // OFFSETS, OFFSETS, merged, inputs // merged, 2, samples, neurons)
        mean: Array = self.deviation.reshape(shape).mean((0, 3), dtype=np.float64)
        return mean


def nominal_peak(tau_mem: float, tau_syn: float, drive: float) -> float:
    """Return the nominal peak of a potential per weight LSB (trace units)."""
    if abs(tau_mem / tau_syn - 1) < 1e-6:
        return drive * tau_mem / math.e
    at = math.log(tau_mem / tau_syn) / (1 / tau_syn - 1 / tau_mem)
    return drive * (math.exp(-at / tau_mem) - math.exp(-at / tau_syn)) / (1 / tau_syn - 1 / tau_mem)


def psp_weight(bench: Bench) -> int:
    """Return the integer weight for single potentials: the largest with nominal peaks up to `LARGEST_PSP`."""
    peaks = [nominal_peak(p.tau_mem, p.tau_syn, bench.capabilities.synaptic_drive) for p in bench.populations]
    return max(1, min(bench.capabilities.weight_max, round(LARGEST_PSP / max(peaks))))


def measure_psp(bench: Bench, baseline: Baseline, limits: TraceRange, repeats: int = 8) -> Psps:
    """Measure every synapse of every neuron with both signs.

    If a membrane rests so low that inhibition would leave the linear range, excitation lifts it at the same time. Each
    sign has a separate amplifier, so the difference is the inhibitory potential.

    Args:
        bench: device with the circuit to measure.
        baseline: leak of the membranes.
        limits: range of the traces.
        repeats: number of trials per input and sign, a multiple of `OFFSETS`.

    Raises:
        ValueError: `repeats` is not a multiple of `OFFSETS`.
    """
    if repeats < 1 or repeats % OFFSETS:
        raise ValueError(f"repeats={repeats} must be a multiple of {OFFSETS}, one for each sub-sample offset")
    weight = psp_weight(bench)
    shape = (repeats, bench.inputs, 2, bench.samples, bench.neurons)
    deviation = np.empty(shape, np.float32)
    linear = np.empty((OFFSETS, bench.merged, 2, bench.samples, bench.neurons), bool)
    single = np.eye(bench.inputs, dtype=bool)
    index = np.arange(bench.inputs)
    offsets = bench.offsets(repeats)

    excitatory = np.full((bench.neurons, bench.inputs), weight)
    codes = _run_each(bench, excitatory, single, offsets)
    linear[:, :, 0] = _linear(codes, index, bench, limits)
    deviation[:, :, 0] = codes - baseline.leak.astype(np.float32)

    lift = _lift(bench, baseline, limits, weight)
    channel = index % bench.capabilities.inputs_per_circuit
    halves = (
        channel < bench.capabilities.inputs_per_circuit // 2,
        channel >= bench.capabilities.inputs_per_circuit // 2,
    )
    masks = []
    for chosen, rest in (halves, halves[::-1]):
        lifters = index[rest][:LIFTERS]
        weights = np.where(chosen, -weight, 0) * np.ones((bench.neurons, 1), np.int64)
        weights[:, lifters] = lift[:, None]
        fired = single[chosen]
        fired[:, lifters] = True
        codes = _run_each(bench, weights, fired, offsets)
        masks.append(_linear(codes, index[chosen], bench, limits))
        deviation[:, chosen, 1] = codes - _lifted(bench, baseline, weights, lifters, lift, repeats)[:, None]
    linear[:, :, 1] = masks[0] & masks[1]
    return Psps(weight, deviation, linear)


def _run_each(bench: Bench, weights: npt.NDArray[np.int64], fired: npt.NDArray[np.bool_], offsets: Array) -> Float:
    """Run every row of `fired` `[F, J]` at every offset; return codes float32 `[R, F, T, N]`."""
    repeats, stimuli = len(offsets), len(fired)
    trials = bench.run(weights, np.tile(fired, (repeats, 1)), np.repeat(offsets, stimuli), spiking=False)
    return trials.codes.reshape(repeats, stimuli, bench.samples, bench.neurons).astype(np.float32)


def _linear(codes: Float, inputs: npt.NDArray[np.int64], bench: Bench, limits: TraceRange) -> npt.NDArray[np.bool_]:
    """Return the mask of samples at which the mean trace of each circuit's inputs is linear `[OFFSETS, A, T, N]`."""
    circuit = inputs // bench.capabilities.inputs_per_circuit
    by_offset = codes.reshape(-1, OFFSETS, *codes.shape[1:]).mean(0)
    means = [by_offset[:, circuit == a].mean(1) for a in range(bench.merged)]
    return limits.linear(np.stack(means, axis=1))


def _lift(bench: Bench, baseline: Baseline, limits: TraceRange, weight: int) -> npt.NDArray[np.int64]:
    """Return the weight of each lifting input `[N]`, 0 for membranes with headroom."""
    per_lsb = LARGEST_PSP / weight
    deficit = HEADROOM - (baseline.leak - limits.low - LINEAR_MARGIN)
    weights = np.ceil(deficit / (LIFTERS * per_lsb)).astype(np.int64)
    return np.clip(weights, 0, bench.capabilities.weight_max)


def _lifted(
    bench: Bench,
    baseline: Baseline,
    weights: npt.NDArray[np.int64],
    lifters: npt.NDArray[np.int64],
    lift: npt.NDArray[np.int64],
    repeats: int,
) -> Float:
    """Return the mean traces of the lift alone, by repetition `[R, T, N]`; without a lift, the leak."""
    fired = np.zeros((LIFT_TRIALS, bench.inputs), bool)
    fired[:, lifters] = True
    by_offset = _run_each(bench, weights, fired, bench.offsets(OFFSETS)).mean(1)
    with_leak = np.where(lift > 0, by_offset, baseline.leak).astype(np.float32)
    return with_leak[np.arange(repeats) % OFFSETS]
