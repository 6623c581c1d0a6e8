"""The loop over time steps of voltage-based plasticity, compiled for the CPU with numba (decision 0008).

Shape letters: `T` steps, `B` samples, `J` inputs, `N` outputs, `E` events. Events are grouped by sample and step: those
of sample b in step t are `units[offsets[b * T + t]:offsets[b * T + t + 1]]`.
"""

from __future__ import annotations

import numpy as np

from hxtrain.neurons.jit import Float, Int, compiled


@compiled
def _depress(units, begin, end, filtered, theta, factor, depression):
    """Depress the synapses of all input spikes of a step by the filtered membranes."""
    for i in range(filtered.shape[0]):
        factor[i] = filtered[i] - theta if filtered[i] > theta else 0.0
    for e in range(begin, end):
        j = units[e]
        for i in range(factor.shape[0]):
            depression[j, i] += factor[i]


@compiled
def _potentiate(voltage, theta_plus, filtered, theta_minus, trace, potentiation):
    """Potentiate the synapses of all neurons above both thresholds by the trace of the inputs."""
    above = 0
    for i in range(voltage.shape[0]):
        above += voltage[i] > theta_plus
    if above == 0:
        return
    for i in range(voltage.shape[0]):
        if voltage[i] > theta_plus and filtered[i] > theta_minus:
            amount = (voltage[i] - theta_plus) * (filtered[i] - theta_minus)
            for j in range(trace.shape[0]):
                potentiation[i, j] += amount * trace[j]


@compiled
def follow(
    first: int,
    last: int,
    is_start: bool,
    pre_offsets: Int,
    pre_units: Int,
    post_offsets: Int,
    post_units: Int,
    membranes: Float,
    constants: Float,
    minus: Float,
    plus: Float,
    trace: Float,
    potentiation: Float,
    depression: Float,
) -> None:
    """Follow a projection through consecutive steps. Sums do not depend on how a trial is cut into calls.

    Args:
        first: First step.
        last: Step after the last one.
        is_start: Whether the first step is that of a trial, at which filters start.
        pre_offsets: Start of each group of input events `[B T + 1]`.
        pre_units: Input of each event `[E]`.
        post_offsets: Start of each group of output events `[B T + 1]`.
        post_units: Output of each event `[E]`.
        membranes: Membranes of the outputs without the waveform of spikes `[T, B, N]`.
        constants: theta_minus, theta_plus, height of a spike, shares by which the filters for depression and
            potentiation approach the membrane in a step, and decay of the trace in a step.
        minus: Filter for depression, float64 `[B, N]`; changed in place, like all below.
        plus: Filter for potentiation, float64 `[B, N]`.
        trace: Trace of the inputs, float64 `[B, J]`.
        potentiation: Sum of potentiation at an amplitude of 1 per step, float64 `[N, J]`.
        depression: Sum of depression at an amplitude of 1, float64 `[J, N]`.
    """
    theta_minus, theta_plus, spike, to_minus, to_plus, decay = constants
    steps, samples, outputs = membranes.shape
    voltage = np.empty(outputs)
    factor = np.empty(outputs)
    for t in range(first, last):
        for b in range(samples):
            row = b * steps + t
            for i in range(outputs):
                voltage[i] = membranes[t, b, i]
            for e in range(post_offsets[row], post_offsets[row + 1]):
                voltage[post_units[e]] += spike
            if is_start and t == first:
                minus[b] = voltage
                plus[b] = voltage
            begin = pre_offsets[row]
            end = pre_offsets[row + 1]
            if begin < end:
                _depress(pre_units, begin, end, minus[b], theta_minus, factor, depression)
            _potentiate(voltage, theta_plus, plus[b], theta_minus, trace[b], potentiation)
            for i in range(outputs):
                minus[b, i] += (voltage[i] - minus[b, i]) * to_minus
                plus[b, i] += (voltage[i] - plus[b, i]) * to_plus
            for j in range(trace.shape[1]):
                trace[b, j] *= decay
            for e in range(begin, end):
                trace[b, pre_units[e]] += 1.0
