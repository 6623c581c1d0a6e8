"""Loops of a layer's forward pass, compiled for the CPU with numba (decision 0008).

Each call computes its part of the neurons or of the batch from the first step to the last, so that the state of this
part stays in the first-level cache. The innermost loops run over neurons and become vector instructions. `psp.py` and
`twin.py` say the same in torch; `backward_kernels.py` has the loops of the backward pass.

A loop over neurons is a function of its own on whole, flat arrays and an unsigned start: slices would cost more than
the loop itself, and a signed start might count from the end. In these functions `n_neurons` is the number of neurons of
the part, and `width` is the same padded to whole vectors.

Shape letters: `T` steps, `B` samples, `J` inputs, `N` neurons, `E` events. Events are grouped by sample and step:
those of sample b in step t are `units[offsets[b * T + t]:offsets[b * T + t + 1]]`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}
compiled: Any = numba.njit(**OPTIONS)
exact: Any = numba.njit(nogil=True, cache=True, error_model="numpy")

uptr = np.uintp
BLOCK = uptr(16)
"""Rows of weights that are turned into columns together: as many numbers as a cache line holds."""


@exact
def _place(sample, unit, time, samples, units, dt, tolerance, steps, rows):
    """Write the row of each event, in groups by sample and step; the row is -1 after the window.

    Returns:
        Index of the first event that is out of range, -1 if there is none; the loops do not check bounds.
    """
    for e in range(time.shape[0]):
        if not (0 <= sample[e] < samples and 0 <= unit[e] < units and time[e] >= 0):
            return e
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        rows[e] = sample[e] * steps + np.int64(step) if step < steps else -1
    return -1


@exact
def _fill(rows, unit, offsets, units):
    """Write events to their groups; events with row -1 are left out. `offsets[1:]` [R] has the sizes of the groups."""
    for row in range(offsets.shape[0] - 1):
        offsets[row + 1] += offsets[row]
    for e in range(rows.shape[0]):
        if rows[e] >= 0:
            units[offsets[rows[e]]] = unit[e]
            offsets[rows[e]] += 1
    for row in range(offsets.shape[0] - 1, 0, -1):
        offsets[row] = offsets[row - 1]
    offsets[0] = 0


@exact
def group_events(sample, unit, time, samples, sources, dt, tolerance, offsets, units):
    """Group events (in any order within their sample) by sample and step; events after the window are left out.

    Args:
        sample: Sample of each event, int64 [E].
        unit: Source of each event, int64 [E].
        time: Time of each event, float32 [E] (s).
        samples: Number of samples B.
        sources: Number of sources J.
        dt: Width of a bin (s).
        tolerance: Tolerance of a bin's lower edge, in bins.
        offsets: Start of each group, int64 [B T + 1] (out).
        units: Sources of the grouped events, int64 [E] (out).

    Returns:
        Index of the first event that is out of range, -1 if there is none.
    """
    steps = (offsets.shape[0] - 1) // max(samples, 1)
    rows = np.empty(time.shape[0], np.int64)
    invalid_event = _place(sample, unit, time, samples, sources, dt, tolerance, steps, rows)
    if invalid_event >= 0:
        return invalid_event
    offsets[:] = 0
    for e in range(rows.shape[0]):
        if rows[e] >= 0:
            offsets[rows[e] + 1] += 1
    _fill(rows, unit, offsets, units)
    return -1


@exact
def bin_spikes(sample, unit, time, samples, neurons, dt, tolerance, offsets, units):
    """Group spikes as `group_events` does; several spikes of a neuron in one step count once."""
    steps = (offsets.shape[0] - 1) // max(samples, 1)
    rows = np.empty(time.shape[0], np.int64)
    invalid_event = _place(sample, unit, time, samples, neurons, dt, tolerance, steps, rows)
    if invalid_event >= 0:
        return invalid_event
    offsets[:] = 0
    occupied = np.zeros(((offsets.shape[0] - 1) * neurons + 7) // 8, np.uint8)
    for e in range(rows.shape[0]):
        if rows[e] >= 0:
            place = rows[e] * neurons + unit[e]
            bit = np.uint8(1 << (place & 7))
            if occupied[place >> 3] & bit:
                rows[e] = -1
            else:
                occupied[place >> 3] |= bit
                offsets[rows[e] + 1] += 1
    _fill(rows, unit, offsets, units)
    return -1


@exact
def to_grid(offsets, units, grid):
    """Write 1 for each event into a grid [T, B, N] of zeros."""
    for b in range(grid.shape[1]):
        for t in range(grid.shape[0]):
            row = b * grid.shape[0] + t
            for e in range(offsets[row], offsets[row + 1]):
                grid[t, b, units[e]] = 1


@exact
def count_events(offsets, units, steps, counts):
    """Count the events of each source in each sample, [B, N] (out)."""
    counts[:] = 0
    for b in range(counts.shape[0]):
        for e in range(offsets[b * steps], offsets[(b + 1) * steps]):
            counts[b, units[e]] += 1


@exact
def join_buffers(counts, buffers, offsets, units):
    """Join the spikes that `respond` wrote to one buffer for each part of the neurons or samples.

    Args:
        counts: Number of spikes of each part in each step, [P, B, T].
        buffers: Neurons of each part that spiked, in order, [P, ...].
        offsets: Start of each group, int64 [B T + 1] (out).
        units: Neurons of the grouped spikes, int64 [E] (out).
    """
    parts, samples, steps = counts.shape
    n_read = np.zeros(parts, np.int64)
    total = 0
    for b in range(samples):
        for t in range(steps):
            offsets[b * steps + t] = total
            for p in range(parts):
                for i in range(n_read[p], n_read[p] + counts[p, b, t]):
                    units[total] = buffers[p, i]
                    total += 1
                n_read[p] += counts[p, b, t]
    offsets[-1] = total


@compiled
def membranes(begin, end, codes, unit, traces):
    """Write membranes `[T, B, N]`, leak 0, of raw codes `[B, T, N]` of trials `begin` to `end`.

    The first sample of each trial is its leak.
    """
    steps, batch, neurons = traces.shape
    rest = np.empty(neurons, traces.dtype)
    flat_traces = traces.reshape(-1)
    stride = uptr(batch * neurons)
    for b in range(begin, end):
        for n in range(uptr(neurons)):
            rest[n] = codes[b, 0, n]
        for t in range(steps):
            to_membrane(codes[b, t], rest, unit, flat_traces, uptr(t) * stride + uptr(b * neurons))


@compiled
def to_membrane(code, rest, unit, traces, start):
    for n in range(uptr(rest.shape[0])):
        traces[start + n] = (np.float32(code[n]) - rest[n]) * unit


@compiled
def padded(count):
    """Return the width of rows that hold `count` neurons and are whole vectors: the remainder of a loop is slow."""
    return uptr((count + 31) // 32 * 32)


@compiled
def add_row(x, rows, start, n_neurons):
    for n in range(n_neurons):
        x[n] += rows[start + n]


@compiled
def columns_of(weight, first, last, width):
    """Return rows `first` to `last` of weights `[N, J]` as the columns of `[J, width]`, flat, padded with zeros."""
    columns = np.zeros(uptr(weight.shape[1]) * width, weight.dtype)
    rows = weight.reshape(-1)
    inputs = uptr(weight.shape[1])
    n_neurons = uptr(last - first)
    for block in range(uptr(0), n_neurons, BLOCK):
        end = min(block + BLOCK, n_neurons)
        for j in range(inputs):
            for n in range(block, end):
                columns[j * width + n] = rows[(uptr(first) + n) * inputs + j]
    return columns


# Forward


@compiled
def decay(current, alpha):
    for n in range(uptr(current.shape[0])):
        current[n] *= alpha


@compiled
def _arrive(current, alpha, rows, units, begin, end):
    """Let the currents decay, and add the rows of the events `begin` to `end`."""
    width = uptr(current.shape[0])
    for n in range(width):
        current[n] *= alpha
    for e in range(begin, end):
        start = uptr(units[e]) * width
        for n in range(width):
            current[n] += rows[start + n]


@compiled
def _record(membrane, traces, start, n_neurons):
    """Record the membranes; return how many are above the threshold."""
    count = 0
    for n in range(n_neurons):
        traces[start + n] = membrane[n]
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _count_above(membrane, n_neurons):
    """Return how many membranes are above the threshold."""
    count = 0
    for n in range(n_neurons):
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _collect(membrane, first, n_neurons, buffer, position):
    """Write the neurons above the threshold into a buffer from `position` on; the first neuron has number `first`."""
    for n in range(n_neurons):
        if membrane[n] > membrane.dtype.type(1):
            buffer[position] = first + n
            position += 1


@compiled
def _advance(membrane, current, beta, spiking):
    """Advance the membranes by a step; if neurons spike, membranes above the threshold are reset."""
    threshold = membrane.dtype.type(1)
    zero = membrane.dtype.type(0)
    if spiking:
        for n in range(uptr(membrane.shape[0])):
            reset = threshold if membrane[n] > threshold else zero
            membrane[n] = beta * membrane[n] + current[n] - reset
    else:
        for n in range(uptr(membrane.shape[0])):
            membrane[n] = beta * membrane[n] + current[n]


@compiled
def _advance_and_reset(membrane, current, reset, beta):
    for n in range(uptr(membrane.shape[0])):
        membrane[n] = beta * membrane[n] + current[n] - reset[n]


@compiled
def respond(
    begin, end, first, last, shape, offsets, units, weight, drive, recurrent, alpha, beta, traces, spiking, counts,
    buffer,
):  # fmt: skip
    """Run samples `begin` to `end` through neurons `first` to `last` of a layer of the twin.

    Args:
        begin: First sample.
        end: End of the samples.
        first: First neuron; 0 with recurrent weights, since all neurons then run together.
        last: End of the neurons; N with recurrent weights.
        shape: T, B, N.
        offsets: Start of each group of input events, int64 [B T + 1].
        units: Sources of the input events, int64 [E].
        weight: Weights [N, J] of input events; empty if the inputs are given as `drive`.
        drive: Summed weights of the inputs of each step, [T, B, N]; unused with input events.
        recurrent: Recurrent weights [N, N]; empty without recurrence.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        traces: Membranes [T, B, N] (out); empty if they are not recorded.
        spiking: Whether neurons spike.
        counts: Number of spikes of these neurons in each step, [B, T] (out).
        buffer: Neurons that spiked, in order (out).
    """
    steps, batch, neurons = shape
    n_neurons = uptr(last - first)
    width = padded(last - first)
    has_events = weight.shape[0] > 0
    is_recurrent = recurrent.shape[0] > 0
    rows = columns_of(weight, first, last if has_events else first, width)
    recurrent_rows = columns_of(recurrent, first, last if is_recurrent else first, width)
    flat_drive = drive.reshape(-1)
    flat_traces = traces.reshape(-1)
    current = np.zeros(width, traces.dtype)
    membrane = np.zeros(width, traces.dtype)
    position = 0
    for b in range(begin, end):
        current[:] = 0
        membrane[:] = 0
        for t in range(steps):
            start = uptr((t * batch + b) * neurons + first)
            group = b * steps + t
            if flat_traces.shape[0] > 0:
                count = _record(membrane, flat_traces, start, n_neurons)
            else:
                count = _count_above(membrane, n_neurons)
            if has_events:
                _arrive(current, alpha, rows, units, offsets[group], offsets[group + 1])
            else:
                decay(current, alpha)
                add_row(current, flat_drive, start, n_neurons)
            if spiking:
                counts[b, t] = count
                if count > 0:
                    _collect(membrane, first, n_neurons, buffer, position)
                    if is_recurrent:
                        for i in range(position, position + count):
                            add_row(current, recurrent_rows, uptr(buffer[i]) * width, width)
                    position += count
            _advance(membrane, current, beta, spiking)


@compiled
def follow(begin, end, offsets, units, weight, drive, recurrent, spike_offsets, spike_units, alpha, beta, traces):
    """Run samples `begin` to `end` through a layer of the twin with prescribed spikes.

    Args:
        begin: First sample.
        end: End of the samples.
        offsets: As in `respond`.
        units: As in `respond`.
        weight: As in `respond`.
        drive: As in `respond`.
        recurrent: As in `respond`.
        spike_offsets: Start of each group of the layer's spikes, int64 [B T + 1].
        spike_units: Neurons of the layer's spikes, at most one spike per neuron and step, int64.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        traces: Membranes [T, B, N] (out).
    """
    steps, batch, neurons = traces.shape
    n_neurons = uptr(neurons)
    width = padded(neurons)
    threshold = traces.dtype.type(1)
    has_events = weight.shape[0] > 0
    is_recurrent = recurrent.shape[0] > 0
    rows = columns_of(weight, 0, neurons if has_events else 0, width)
    recurrent_rows = columns_of(recurrent, 0, neurons if is_recurrent else 0, width)
    flat_drive = drive.reshape(-1)
    flat_traces = traces.reshape(-1)
    current = np.zeros(width, traces.dtype)
    membrane = np.zeros(width, traces.dtype)
    reset = np.zeros(width, traces.dtype)
    for b in range(begin, end):
        current[:] = 0
        membrane[:] = 0
        for t in range(steps):
            start = uptr((t * batch + b) * neurons)
            group = b * steps + t
            _record(membrane, flat_traces, start, n_neurons)
            if has_events:
                _arrive(current, alpha, rows, units, offsets[group], offsets[group + 1])
            else:
                decay(current, alpha)
                add_row(current, flat_drive, start, n_neurons)
            for e in range(spike_offsets[group], spike_offsets[group + 1]):
                reset[uptr(spike_units[e])] = threshold
                if is_recurrent:
                    add_row(current, recurrent_rows, uptr(spike_units[e]) * width, width)
            _advance_and_reset(membrane, current, reset, beta)
            for e in range(spike_offsets[group], spike_offsets[group + 1]):
                reset[uptr(spike_units[e])] = 0
