"""Loops of a layer's forward and backward pass, compiled for the CPU with numba (decision 0008).

Each call does its part of a batch from the first step to the last (or back), so that the state of its neurons stays in
the first-level cache; the innermost loops run over neurons and become vector instructions. `psp.py`, `twin.py` and
`injection.py` say the same in torch.

A loop over neurons is a function of its own on whole, flat arrays and an unsigned offset: slices would cost more than
the loop itself, and a signed offset might count from the end.

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
_compiled: Any = numba.njit(**OPTIONS)
_exact: Any = numba.njit(nogil=True, cache=True, error_model="numpy")

uptr = np.uintp
SUPERSPIKE, TRIANGLE, SIGMOID, GAUSSIAN, ARCTAN, BOXCAR = range(6)


@_exact
def first_bad(sample, unit, time, samples, units):
    """Return the first event that is out of range, for the loops below do not look at bounds; -1 if none is."""
    for e in range(time.shape[0]):
        if not (0 <= sample[e] < samples and 0 <= unit[e] < units and time[e] >= 0):
            return e
    return -1


@_exact
def group_events(sample, unit, time, dt, tolerance, steps, offsets, units):
    """Group events (in any order within their sample) by sample and step; those after the window are left out.

    Args:
        sample, unit: int64 [E]. time: float32 [E], s. dt: s. tolerance: of a bin's lower edge, in bins.
        offsets: int64 [B T + 1] (out). units: int64 [E] (out).
    """
    offsets[:] = 0
    for e in range(time.shape[0]):
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        if step < steps:
            offsets[sample[e] * steps + np.int64(step) + 1] += 1
    for row in range(offsets.shape[0] - 1):
        offsets[row + 1] += offsets[row]
    for e in range(time.shape[0]):
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        if step < steps:
            row = sample[e] * steps + np.int64(step)
            units[offsets[row]] = unit[e]
            offsets[row] += 1
    for row in range(offsets.shape[0] - 1, 0, -1):
        offsets[row] = offsets[row - 1]
    offsets[0] = 0


@_exact
def bin_spikes(sample, unit, time, dt, tolerance, grid, offsets, units):
    """Put spikes on a grid, where spikes of a neuron in one step count once, and group them as `group_events` does.

    Args:
        sample, unit: int64 [E]. time: float32 [E], s. dt: s. tolerance: of a bin's lower edge, in bins.
        grid: [T, B, N], zero before; 1 where a neuron spikes (out).
        offsets: int64 [B T + 1] (out). units: int64 [E] (out).

    Returns:
        How many spikes there are on the grid.
    """
    steps, marked, placed = grid.shape[0], grid.dtype.type(2), grid.dtype.type(1)
    offsets[:] = 0
    for e in range(time.shape[0]):
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        if step < steps and grid[np.int64(step), sample[e], unit[e]] != marked:
            grid[np.int64(step), sample[e], unit[e]] = marked
            offsets[sample[e] * steps + np.int64(step) + 1] += 1
    for row in range(offsets.shape[0] - 1):
        offsets[row + 1] += offsets[row]
    for e in range(time.shape[0]):
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        if step < steps and grid[np.int64(step), sample[e], unit[e]] == marked:
            grid[np.int64(step), sample[e], unit[e]] = placed
            row = sample[e] * steps + np.int64(step)
            units[offsets[row]] = unit[e]
            offsets[row] += 1
    for row in range(offsets.shape[0] - 1, 0, -1):
        offsets[row] = offsets[row - 1]
    offsets[0] = 0
    return offsets[-1]


@_exact
def count_events(offsets, units, steps, counts):
    """Count each source's events in each sample, [B, N] (out)."""
    counts[:] = 0
    for b in range(counts.shape[0]):
        for e in range(offsets[b * steps], offsets[(b + 1) * steps]):
            counts[b, units[e]] += 1


@_exact
def join_rooms(counts, rooms, offsets, units):
    """Join the spikes that `respond` left in one room per sample: `counts` [B, T], `rooms` [B, T N]."""
    total = 0
    for b in range(counts.shape[0]):
        spent = 0
        for t in range(counts.shape[1]):
            offsets[b * counts.shape[1] + t] = total + spent
            spent += counts[b, t]
        for i in range(spent):
            units[total + i] = rooms[b, i]
        total += spent
    offsets[-1] = total


@_compiled
def membranes(begin, end, codes, unit, traces):
    """Write membranes `[T, B, N]`, leak 0, of raw codes `[B, T, N]` of trials `begin` to `end`.

    The first sample of each trial is its leak.
    """
    for b in range(begin, end):
        for t in range(codes.shape[1]):
            _to_membrane(codes[b, t], codes[b, 0], unit, traces[t, b])


@_compiled
def _to_membrane(code, rest, unit, membrane):
    for n in range(code.shape[0]):
        membrane[n] = (np.float32(code[n]) - np.float32(rest[n])) * unit


@_compiled
def _padded(count):
    """Return the width of rows that hold so many neurons and are whole vectors: a loop's rest would be slow."""
    return uptr((count + 31) // 32 * 32)


@_compiled
def _add_row(x, rows, at, some):
    for n in range(some):
        x[n] += rows[at + n]


# Forward


@_compiled
def _emit(membrane, fired, traces, spikes, at, some, firing):
    """Record the membranes and their spikes at `at`; return the number of spikes."""
    for n in range(some):
        traces[at + n] = membrane[n]
    if not firing:
        return 0
    count = 0
    for n in range(uptr(membrane.shape[0])):
        above = membrane[n] > membrane.dtype.type(1)
        fired[n] = membrane.dtype.type(1) if above else membrane.dtype.type(0)
        count += 1 if above else 0
    for n in range(some):
        spikes[at + n] = fired[n]
    return count


@_compiled
def _collect(fired, b, spent, rooms):
    """Write the neurons that spiked into the room of sample b, behind `spent` others."""
    for n in range(uptr(fired.shape[0])):
        if fired[n] > 0:
            rooms[b, spent] = n
            spent += 1


@_compiled
def _decay(current, alpha):
    for n in range(uptr(current.shape[0])):
        current[n] *= alpha


@_compiled
def _advance(membrane, current, fired, beta):
    for n in range(uptr(membrane.shape[0])):
        membrane[n] = beta * membrane[n] + current[n] - fired[n]


@_compiled
def respond(begin, end, offsets, units, weight, drive, recurrent, alpha, beta, traces, spikes, counts, rooms):
    """Run samples `begin` to `end` through a layer of the twin.

    Args:
        offsets, units: input events. weight: [J, W], rows `padded`. Without inputs as events, weight is empty, and
            `drive` in use: [T, B, N], summed weights of each step's inputs.
        recurrent: [N, W], row n is what a spike of neuron n adds to each current; empty without.
        alpha, beta: decay of synaptic current and membrane per step.
        traces: [T, B, N] (out). spikes: likewise (out); empty for a readout.
        counts: [B, T], spikes of each step (out). rooms: [B, T N], the neurons that spiked, in order (out).
    """
    steps, batch, neurons = traces.shape
    some, width = uptr(neurons), _padded(neurons)
    firing, from_events, feeding = spikes.shape[0] > 0, weight.shape[0] > 0, recurrent.shape[0] > 0
    rows, own, driven = weight.reshape(-1), recurrent.reshape(-1), drive.reshape(-1)
    trace, spike = traces.reshape(-1), spikes.reshape(-1)
    current, membrane = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    fired = np.zeros(width, traces.dtype)
    for b in range(begin, end):
        current[:], membrane[:], spent = 0, 0, 0
        for t in range(steps):
            at, row = uptr((t * batch + b) * neurons), b * steps + t
            count = _emit(membrane, fired, trace, spike, at, some, firing)
            if firing:
                counts[b, t] = count
            if count > 0:
                _collect(fired, b, spent, rooms)
                spent += count
            _decay(current, alpha)
            if from_events:
                for e in range(offsets[row], offsets[row + 1]):
                    _add_row(current, rows, uptr(units[e]) * width, width)
            else:
                _add_row(current, driven, at, some)
            if feeding:
                for i in range(spent - count, spent):
                    _add_row(current, own, uptr(rooms[b, i]) * width, width)
            _advance(membrane, current, fired, beta)


@_compiled
def follow(begin, end, offsets, units, weight, drive, recurrent, fired_offsets, fired_units, alpha, beta, traces):
    """Run samples `begin` to `end` through a layer of the twin whose spikes are given.

    Args:
        offsets, units, weight, drive, recurrent, alpha, beta: as of `respond`.
        fired_offsets, fired_units: the layer's spikes, at most one per neuron and step.
        traces: [T, B, N] (out).
    """
    steps, batch, neurons = traces.shape
    some, width, one = uptr(neurons), _padded(neurons), traces.dtype.type(1)
    from_events, feeding = weight.shape[0] > 0, recurrent.shape[0] > 0
    rows, own, driven, trace = weight.reshape(-1), recurrent.reshape(-1), drive.reshape(-1), traces.reshape(-1)
    current, membrane = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    fired = np.zeros(width, traces.dtype)
    for b in range(begin, end):
        current[:], membrane[:] = 0, 0
        for t in range(steps):
            at, row = uptr((t * batch + b) * neurons), b * steps + t
            _emit(membrane, fired, trace, trace, at, some, False)
            _decay(current, alpha)
            if from_events:
                for e in range(offsets[row], offsets[row + 1]):
                    _add_row(current, rows, uptr(units[e]) * width, width)
            else:
                _add_row(current, driven, at, some)
            for e in range(fired_offsets[row], fired_offsets[row + 1]):
                fired[uptr(fired_units[e])] = one
                if feeding:
                    _add_row(current, own, uptr(fired_units[e]) * width, width)
            _advance(membrane, current, fired, beta)
            for e in range(fired_offsets[row], fired_offsets[row + 1]):
                fired[uptr(fired_units[e])] = 0


# Backward


@_compiled
def _products(x, charge, row, columns):
    """Add to `x[n]` the sum over the neurons m of the layer behind of `charge[row + m] columns[m, n]`."""
    width = uptr(x.shape[0])
    behind = uptr(columns.shape[0]) // width
    for m in range(uptr(0), behind - behind % uptr(2), uptr(2)):
        first, second, at = charge[row + m], charge[row + m + uptr(1)], m * width
        for n in range(width):
            x[n] += first * columns[at + n] + second * columns[at + width + n]
    if behind % uptr(2) == 1:
        last, at = charge[row + behind - uptr(1)], (behind - uptr(1)) * width
        for n in range(width):
            x[n] += last * columns[at + n]


@_compiled
def _distance(distance, traces, spikes, at, some, at_threshold):
    """Write the membranes' distances from the threshold, zero where a spike says that they were there."""
    one = distance.dtype.type(1)
    if at_threshold:
        for n in range(some):
            distance[n] = (traces[at + n] - one) * (one - spikes[at + n])
    else:
        for n in range(some):
            distance[n] = traces[at + n] - one


@_compiled
def _surrogate(kind, x, distance, slope):
    """Multiply by surrogate derivatives (`surrogate.py`)."""
    one, zero, four, half = x.dtype.type(1), x.dtype.type(0), x.dtype.type(4), x.dtype.type(0.5)
    if kind == SUPERSPIKE:
        for n in range(uptr(x.shape[0])):
            y = one + slope * abs(distance[n])
            x[n] *= one / (y * y)
        return
    for n in range(uptr(x.shape[0])):
        y = slope * distance[n]
        if kind == TRIANGLE:
            x[n] *= max(one - abs(y), zero)
        elif kind == SIGMOID:
            s = one / (one + np.exp(-y))
            x[n] *= four * s * (one - s)
        elif kind == GAUSSIAN:
            x[n] *= np.exp(-half * y * y)
        elif kind == ARCTAN:
            x[n] *= one / (one + y * y)
        else:
            x[n] *= one if abs(y) < one else zero


@_compiled
def _back(through, membrane, charge, now, before, alpha, beta):
    """Carry the gradient of the membranes one step back, and that of the charges with it."""
    for n in range(uptr(membrane.shape[0])):
        x = beta * membrane[n] + through[n]
        membrane[n] = x
        charge[before + n] = alpha * charge[now + n] + x


@_compiled
def _add_to_row(rows, at, charge, now, width):
    for n in range(width):
        rows[at + n] += charge[now + n]


@_compiled
def gradient(
    first, last, offsets, units, spikes, traces, grad_spikes, grad_counts, grad_traces, behind, weight, kind, slope,
    at_threshold, alpha, beta, charges, grad_weight,
):  # fmt: skip
    """Carry the gradient of neurons `first` to `last` back through a layer without recurrence, all samples.

    Args:
        offsets, units: input events; in use with `grad_weight`.
        spikes, traces: as measured, [T, B, N]; spikes are in use where `at_threshold` says so.
        grad_spikes, grad_traces: gradients of the loss, [T, B, N] each; empty for none.
        grad_counts: its gradient with respect to the number of spikes, [B, N]; empty for none.
        behind, weight: charges [T, B, M] and weights [M, N] of the layer behind, another gradient of the spikes;
            empty for none.
        kind, slope: surrogate. alpha, beta: decay of synaptic current and membrane per step.
        charges: gradient of the charge that arrives in each step, [T, B, N] (out); empty if not wanted.
        grad_weight: [J, N] (out); empty if not wanted.
    """
    steps, batch, neurons = traces.shape
    some, width = uptr(last - first), _padded(last - first)
    trace, spike, by_spike, by_count, by_trace, charge_behind, out = (
        traces.reshape(-1), spikes.reshape(-1), grad_spikes.reshape(-1), grad_counts.reshape(-1),
        grad_traces.reshape(-1), behind.reshape(-1), charges.reshape(-1),
    )  # fmt: skip
    spiking = grad_spikes.shape[0] > 0 or grad_counts.shape[0] > 0 or behind.shape[0] > 0
    charge, distance = np.zeros(uptr(steps) * width, traces.dtype), np.zeros(width, traces.dtype)
    membrane, through = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    columns = np.zeros(uptr(weight.shape[0]) * width, traces.dtype)
    for m in range(weight.shape[0]):
        columns[uptr(m) * width : uptr(m) * width + some] = weight[m, first:last]
    rows = np.zeros(uptr(grad_weight.shape[0]) * width, traces.dtype)
    for b in range(batch):
        membrane[:] = 0
        charge[uptr(steps - 1) * width :] = 0
        for t in range(steps - 1, 0, -1):
            at = uptr((t * batch + b) * neurons + first)
            through[:] = 0
            if behind.shape[0] > 0:
                _products(through, charge_behind, uptr((t * batch + b) * behind.shape[2]), columns)
            if grad_spikes.shape[0] > 0:
                _add_row(through, by_spike, at, some)
            if grad_counts.shape[0] > 0:
                _add_row(through, by_count, uptr(b * neurons + first), some)
            if spiking:
                _distance(distance, trace, spike, at, some, at_threshold)
                _surrogate(kind, through, distance, slope)
            if grad_traces.shape[0] > 0:
                _add_row(through, by_trace, at, some)
            _back(through, membrane, charge, uptr(t) * width, uptr(t - 1) * width, alpha, beta)
        if charges.shape[0] > 0:
            for t in range(steps):
                at, now = uptr((t * batch + b) * neurons + first), uptr(t) * width
                for n in range(some):
                    out[at + n] = charge[now + n]
        if grad_weight.shape[0] > 0:
            for t in range(steps - 1):
                row = b * steps + t
                for e in range(offsets[row], offsets[row + 1]):
                    _add_to_row(rows, uptr(units[e]) * width, charge, uptr(t) * width, width)
    for j in range(grad_weight.shape[0]):
        grad_weight[j, first:last] = rows[uptr(j) * width : uptr(j) * width + some]
