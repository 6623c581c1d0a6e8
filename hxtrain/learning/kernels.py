"""Loops of a layer's forward and backward pass, compiled for the CPU with numba (decision 0008).

Each call does its part of a batch from the first step to the last (or back), so that the state of its neurons stays in
the first-level cache; the innermost loops run over neurons and become vector instructions. `psp.py`, `twin.py` and
`injection.py` say the same in torch.

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

SUPERSPIKE, TRIANGLE, SIGMOID, GAUSSIAN, ARCTAN, BOXCAR = range(6)


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
def membranes(codes, unit, traces):
    """Write membranes `[T, B, N]`, leak 0, of raw codes `[B, T, N]`; the first sample of each trial is its leak."""
    for b in range(codes.shape[0]):
        for t in range(codes.shape[1]):
            _to_membrane(codes[b, t], codes[b, 0], unit, traces[t, b])


@_compiled
def _to_membrane(code, rest, unit, membrane):
    for n in range(code.shape[0]):
        membrane[n] = (np.float32(code[n]) - np.float32(rest[n])) * unit


@_compiled
def _add(x, y):
    for n in range(x.shape[0]):
        x[n] += y[n]


@_compiled
def _copy(x, y):
    for n in range(x.shape[0]):
        x[n] = y[n]


@_compiled
def _scale(x, factor):
    for n in range(x.shape[0]):
        x[n] *= factor


@_compiled
def _integrate(membrane, current, beta):
    for n in range(membrane.shape[0]):
        membrane[n] = beta * membrane[n] + current[n]


@_compiled
def _integrate_and_reset(membrane, current, fired, beta):
    for n in range(membrane.shape[0]):
        membrane[n] = beta * membrane[n] + current[n] - fired[n]


@_compiled
def _fire(membrane, fired):
    """Write 1 where a membrane is above its threshold, else 0; return how many are."""
    one, zero = membrane.dtype.type(1), membrane.dtype.type(0)
    count = 0
    for n in range(membrane.shape[0]):
        above = membrane[n] > one
        fired[n] = one if above else zero
        count += 1 if above else 0
    return count


@_compiled
def respond(begin, end, offsets, units, weight, drive, recurrent, alpha, beta, traces, spikes, counts, rooms):
    """Run samples `begin` to `end` through a layer of the twin.

    Args:
        offsets, units: input events. weight: [J, N]. Without inputs as events, weight is empty, and `drive` in use.
        drive: [T, B, N], summed weights of each step's inputs; empty with events.
        recurrent: [N, N], row n is what a spike of neuron n adds to each current; empty without.
        alpha, beta: decay of synaptic current and membrane per step.
        traces: [T, B, N] (out). spikes: likewise (out); empty for a readout.
        counts: [B, T], spikes of each step (out). rooms: [B, T N], the neurons that spiked, in order (out).
    """
    steps, neurons = traces.shape[0], traces.shape[2]
    current, membrane = np.empty(neurons, traces.dtype), np.empty(neurons, traces.dtype)
    firing, from_events, feeding = spikes.shape[0] > 0, weight.shape[0] > 0, recurrent.shape[0] > 0
    for b in range(begin, end):
        current[:], membrane[:], spent = 0, 0, 0
        for t in range(steps):
            _copy(traces[t, b], membrane)
            if firing:
                fired = spikes[t, b]
                counts[b, t] = _fire(membrane, fired)
                if counts[b, t] > 0:
                    for n in range(neurons):
                        if fired[n] > 0:
                            rooms[b, spent] = n
                            spent += 1
            _scale(current, alpha)
            if from_events:
                row = b * steps + t
                for e in range(offsets[row], offsets[row + 1]):
                    _add(current, weight[units[e]])
            else:
                _add(current, drive[t, b])
            if firing:
                if feeding:
                    for i in range(spent - counts[b, t], spent):
                        _add(current, recurrent[rooms[b, i]])
                _integrate_and_reset(membrane, current, spikes[t, b], beta)
            else:
                _integrate(membrane, current, beta)


@_compiled
def _distance(trace, spikes, at_threshold, x):
    """Write the membranes' distance from the threshold, zero where a spike says that they were there."""
    one = x.dtype.type(1)
    if at_threshold:
        for n in range(x.shape[0]):
            x[n] = (trace[n] - one) * (one - spikes[n])
    else:
        for n in range(x.shape[0]):
            x[n] = trace[n] - one


@_compiled
def _slopes(kind, slope, x):
    """Replace distances by surrogate derivatives (`surrogate.py`)."""
    one, zero, four, half = x.dtype.type(1), x.dtype.type(0), x.dtype.type(4), x.dtype.type(0.5)
    if kind == SUPERSPIKE:
        for n in range(x.shape[0]):
            y = one + slope * abs(x[n])
            x[n] = one / (y * y)
    elif kind == TRIANGLE:
        for n in range(x.shape[0]):
            x[n] = max(one - slope * abs(x[n]), zero)
    elif kind == SIGMOID:
        for n in range(x.shape[0]):
            s = one / (one + np.exp(-slope * x[n]))
            x[n] = four * s * (one - s)
    elif kind == GAUSSIAN:
        for n in range(x.shape[0]):
            y = slope * x[n]
            x[n] = np.exp(-half * y * y)
    elif kind == ARCTAN:
        for n in range(x.shape[0]):
            y = slope * x[n]
            x[n] = one / (one + y * y)
    else:
        for n in range(x.shape[0]):
            x[n] = one if slope * abs(x[n]) < one else zero


@_compiled
def _multiply(x, y):
    for n in range(x.shape[0]):
        x[n] *= y[n]


@_compiled
def _multiply_by_sum(x, y, z):
    for n in range(x.shape[0]):
        x[n] *= y[n] + z[n]


@_compiled
def _back(through, membrane, charge, beta):
    """Carry the gradient of a membrane one step back: `membrane = beta membrane + through; charge += membrane`."""
    for n in range(membrane.shape[0]):
        x = beta * membrane[n] + through[n]
        membrane[n] = x
        charge[n] += x


@_compiled
def _add_two(x, a, y, b, z):
    for n in range(x.shape[0]):
        x[n] += a * y[n] + b * z[n]


@_compiled
def product(begin, end, charges, weight, out):
    """Write rows `begin` to `end` of `charges [R, N] @ weight [N, J]`, for few neurons (out: [R, J])."""
    last = weight.shape[0] - 1
    for r in range(begin, end):
        out[r] = 0
        for n in range(0, last, 2):
            _add_two(out[r], charges[r, n], weight[n], charges[r, n + 1], weight[n + 1])
        if last % 2 == 0:
            _add_two(out[r], charges[r, last], weight[last], charges.dtype.type(0), weight[last])


@_compiled
def _scaled(x, factor, y):
    for n in range(x.shape[0]):
        y[n] = factor * x[n]


@_compiled
def gradient(
    first, last, offsets, units, spikes, traces, grad_spikes, grad_counts, grad_traces, kind, slope, at_threshold,
    alpha, beta, charges, grad_weight,
):  # fmt: skip
    """Carry the gradient of neurons `first` to `last` back through a layer without recurrence, all samples.

    Args:
        offsets, units: input events; in use with `grad_weight`.
        spikes, traces: as measured, [T, B, N]; spikes are in use where `at_threshold` says so.
        grad_spikes, grad_traces: gradients of the loss, [T, B, N] each; empty for none.
        grad_counts: its gradient with respect to the number of spikes, [B, N]; empty for none.
        kind, slope: surrogate. alpha, beta: decay of synaptic current and membrane per step.
        charges: gradient of the charge that arrives in each step, [T, B, N] (out); empty if not wanted.
        grad_weight: [J, N], zero before (out); empty if not wanted.
    """
    steps, batch = traces.shape[0], traces.shape[1]
    charge = np.empty((steps, last - first), traces.dtype)
    membrane, through = np.empty(last - first, traces.dtype), np.empty(last - first, traces.dtype)
    for b in range(batch):
        membrane[:], charge[steps - 1] = 0, 0
        for t in range(steps - 1, 0, -1):
            if grad_spikes.shape[0] > 0 or grad_counts.shape[0] > 0:
                _distance(traces[t, b, first:last], spikes[t, b, first:last], at_threshold, through)
                _slopes(kind, slope, through)
                if grad_counts.shape[0] == 0:
                    _multiply(through, grad_spikes[t, b, first:last])
                elif grad_spikes.shape[0] == 0:
                    _multiply(through, grad_counts[b, first:last])
                else:
                    _multiply_by_sum(through, grad_spikes[t, b, first:last], grad_counts[b, first:last])
                if grad_traces.shape[0] > 0:
                    _add(through, grad_traces[t, b, first:last])
            else:
                _copy(through, grad_traces[t, b, first:last])
            _scaled(charge[t], alpha, charge[t - 1])
            _back(through, membrane, charge[t - 1], beta)
        if charges.shape[0] > 0:
            for t in range(steps):
                _copy(charges[t, b, first:last], charge[t])
        if grad_weight.shape[0] > 0:
            for t in range(steps - 1):
                row = b * steps + t
                for e in range(offsets[row], offsets[row + 1]):
                    _add(grad_weight[units[e], first:last], charge[t])
