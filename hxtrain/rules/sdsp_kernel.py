"""The loop over input events by which bistable synapses jump and drift, compiled with numba (decision 0008).

Shape letters: `T` steps, `B` samples, `J` inputs, `N` outputs, `E` events. Events of a sample are sorted by time; those
of sample b are `offsets[b]:offsets[b + 1]`.
"""

from __future__ import annotations

import numpy as np

from hxtrain.neurons.jit import Float, Int, compiled


@compiled
def _drift(x, row, elapsed, threshold, rise, fall):
    """Let the synapses of an input drift to the end of their side of the threshold."""
    for i in range(x.shape[1]):
        value = x[row, i]
        risen = value + rise * elapsed
        fallen = value - fall * elapsed
        risen = risen if risen < 1.0 else 1.0
        fallen = fallen if fallen > 0.0 else 0.0
        x[row, i] = risen if value > threshold else fallen


@compiled
def _decay(calcium, elapsed, tau):
    """Let calcium decay for a time, which is negative here."""
    decay = np.exp(elapsed / tau)
    for i in range(calcium.shape[0]):
        calcium[i] *= decay


@compiled
def follow(
    x: Float,
    pre_offsets: Int,
    pre_unit: Int,
    pre_time: Float,
    post_offsets: Int,
    post_unit: Int,
    post_time: Float,
    membranes: Float,
    lesson: Float,
    calcium_lesson: Float,
    constants: Float,
    dt: float,
    stationary: bool,
) -> None:
    """Follow the internal state of synapses through the trials of a batch, one after the other.

    Args:
        x: Internal state of each synapse `[J, N]`, in 0..1; changed in place.
        pre_offsets: First input event of each sample, and the number of events `[B + 1]`.
        pre_unit: Input of each event `[E]`.
        pre_time: Time of each input event `[E]`.
        post_offsets: First output event of each sample, and the number of events `[B + 1]`.
        post_unit: Output of each event `[E]`.
        post_time: Time of each output event `[E]`.
        membranes: Membranes of the outputs `[T, B, N]`.
        lesson: What a teacher adds to the membranes `[B, N]`.
        calcium_lesson: What a teacher adds to the calcium `[B, N]`.
        constants: Jumps up and down, drifts up and down, threshold of x, time constant and jump of the calcium, its
            limits for jumps up (low, high) and down (low, high), threshold of the membrane.
        dt: Width of a step.
        stationary: Whether a trial is one period of a repeated stimulus, so that calcium starts at its periodic value.
    """
    up, down, rise, fall, threshold, tau, jump, up_low, up_high, down_low, down_high, membrane_threshold = constants
    inputs, outputs = x.shape
    steps = membranes.shape[0]
    window = steps * dt
    needs_calcium = up_low >= 0.0 and down_low >= 0.0  # then no synapse of a silent output can jump
    calcium = np.zeros(outputs)
    updated = np.zeros(inputs)  # since the start of the batch: synapses drift through trials without input at once
    for b in range(pre_offsets.shape[0] - 1):
        calcium.fill(0.0)
        q = post_offsets[b]
        q_end = post_offsets[b + 1]
        if stationary:
            for e in range(q, q_end):
                calcium[post_unit[e]] += jump * np.exp((post_time[e] - window) / tau) / (1 - np.exp(-window / tau))
        may_jump = not needs_calcium or calcium.any() or calcium_lesson[b].any()
        previous = 0.0
        for e in range(pre_offsets[b], pre_offsets[b + 1]):
            t = pre_time[e]
            while q < q_end and post_time[q] < t:
                _decay(calcium, previous - post_time[q], tau)
                previous = post_time[q]
                calcium[post_unit[q]] += jump
                may_jump = True
                q += 1
            j = pre_unit[e]
            _drift(x, j, b * window + t - updated[j], threshold, rise, fall)
            updated[j] = b * window + t
            if not may_jump:
                continue
            _decay(calcium, previous - t, tau)
            previous = t
            sample = min(np.int64(np.floor(t / dt + 0.5)), steps - 1)
            for i in range(outputs):  # selections are faster here than branches
                c = calcium[i] + calcium_lesson[b, i]
                is_high = membranes[sample, b, i] + lesson[b, i] > membrane_threshold
                value = x[j, i]
                raised = value + up if value + up < 1.0 else 1.0
                lowered = value - down if value - down > 0.0 else 0.0
                rises = is_high & (c > up_low) & (c < up_high)
                falls = (not is_high) & (c > down_low) & (c < down_high)
                value = raised if rises else value
                x[j, i] = lowered if falls else value
    for j in range(inputs):
        _drift(x, j, (pre_offsets.shape[0] - 1) * window - updated[j], threshold, rise, fall)
