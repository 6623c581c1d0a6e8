"""Loops of a layer's forward pass, compiled for the CPU with numba (decision 0008).

Each call does its part of the neurons or of a batch from the first step to the last (or back), so that their state
stays in the first-level cache; the innermost loops run over neurons and become vector instructions. `psp.py` and
`twin.py` say the same in torch; `backward_kernels.py` has the loops of the backward pass.

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
compiled: Any = numba.njit(**OPTIONS)
exact: Any = numba.njit(nogil=True, cache=True, error_model="numpy")

uptr = np.uintp
BLOCK = uptr(16)
"""Rows of weights that are turned into columns together: as many numbers as a cache line holds."""


@exact
def _place(sample, unit, time, samples, units, dt, tolerance, steps, rows):
    """Write each event's row in groups by sample and step, -1 after the window.

    Returns:
        The first event that is out of range, for the loops do not look at bounds; -1 if none is.
    """
    for e in range(time.shape[0]):
        if not (0 <= sample[e] < samples and 0 <= unit[e] < units and time[e] >= 0):
            return e
        step = np.floor(np.float64(time[e]) / dt + tolerance)
        rows[e] = sample[e] * steps + np.int64(step) if step < steps else -1
    return -1


@exact
def _fill(rows, unit, offsets, units):
    """Write events to their groups, of which `offsets` [R + 1] has the sizes from place 1 on; -1 is left out."""
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
    """Group events (in any order within their sample) by sample and step; those after the window are left out.

    Args:
        sample, unit: int64 [E]. time: float32 [E], s. dt: s. tolerance: of a bin's lower edge, in bins.
        offsets: int64 [B T + 1] (out). units: int64 [E] (out).

    Returns:
        The first event that is out of range; -1 if none is.
    """
    steps, rows = (offsets.shape[0] - 1) // max(samples, 1), np.empty(time.shape[0], np.int64)
    bad = _place(sample, unit, time, samples, sources, dt, tolerance, steps, rows)
    if bad >= 0:
        return bad
    offsets[:] = 0
    for e in range(rows.shape[0]):
        if rows[e] >= 0:
            offsets[rows[e] + 1] += 1
    _fill(rows, unit, offsets, units)
    return -1


@exact
def bin_spikes(sample, unit, time, samples, neurons, dt, tolerance, offsets, units):
    """Group spikes as `group_events` does; those of a neuron in one step count once."""
    steps, rows = (offsets.shape[0] - 1) // max(samples, 1), np.empty(time.shape[0], np.int64)
    bad = _place(sample, unit, time, samples, neurons, dt, tolerance, steps, rows)
    if bad >= 0:
        return bad
    offsets[:] = 0
    seen = np.zeros(((offsets.shape[0] - 1) * neurons + 7) // 8, np.uint8)
    for e in range(rows.shape[0]):
        if rows[e] >= 0:
            place = rows[e] * neurons + unit[e]
            bit = np.uint8(1 << (place & 7))
            if seen[place >> 3] & bit:
                rows[e] = -1
            else:
                seen[place >> 3] |= bit
                offsets[rows[e] + 1] += 1
    _fill(rows, unit, offsets, units)
    return -1


@exact
def to_grid(offsets, units, grid):
    """Write 1 where there is an event into a grid [T, B, N], zero before."""
    for b in range(grid.shape[1]):
        for t in range(grid.shape[0]):
            row = b * grid.shape[0] + t
            for e in range(offsets[row], offsets[row + 1]):
                grid[t, b, units[e]] = 1


@exact
def count_events(offsets, units, steps, counts):
    """Count each source's events in each sample, [B, N] (out)."""
    counts[:] = 0
    for b in range(counts.shape[0]):
        for e in range(offsets[b * steps], offsets[(b + 1) * steps]):
            counts[b, units[e]] += 1


@exact
def join_rooms(counts, rooms, offsets, units):
    """Join the spikes that `respond` left in a room for each part of the neurons or samples.

    Args:
        counts: [P, B, T] spikes of a part in each step. rooms: [P, ...] its neurons that spiked, in order.
        offsets: int64 [B T + 1] (out). units: int64 [E] (out).
    """
    parts, samples, steps = counts.shape
    spent, total = np.zeros(parts, np.int64), 0
    for b in range(samples):
        for t in range(steps):
            offsets[b * steps + t] = total
            for p in range(parts):
                for i in range(spent[p], spent[p] + counts[p, b, t]):
                    units[total] = rooms[p, i]
                    total += 1
                spent[p] += counts[p, b, t]
    offsets[-1] = total


@compiled
def membranes(begin, end, codes, unit, traces):
    """Write membranes `[T, B, N]`, leak 0, of raw codes `[B, T, N]` of trials `begin` to `end`.

    The first sample of each trial is its leak.
    """
    steps, batch, neurons = traces.shape
    rest, trace, stride = np.empty(neurons, traces.dtype), traces.reshape(-1), uptr(batch * neurons)
    for b in range(begin, end):
        for n in range(uptr(neurons)):
            rest[n] = codes[b, 0, n]
        for t in range(steps):
            to_membrane(codes[b, t], rest, unit, trace, uptr(t) * stride + uptr(b * neurons))


@compiled
def to_membrane(code, rest, unit, traces, at):
    for n in range(uptr(rest.shape[0])):
        traces[at + n] = (np.float32(code[n]) - rest[n]) * unit


@compiled
def padded(count):
    """Return the width of rows that hold so many neurons and are whole vectors: a loop's rest would be slow."""
    return uptr((count + 31) // 32 * 32)


@compiled
def add_row(x, rows, at, some):
    for n in range(some):
        x[n] += rows[at + n]


@compiled
def columns_of(weight, first, last, width):
    """Return rows `first` to `last` of weights `[N, J]` as the columns of `[J, width]`, flat, zeros behind them."""
    columns, rows = np.zeros(uptr(weight.shape[1]) * width, weight.dtype), weight.reshape(-1)
    inputs, count = uptr(weight.shape[1]), uptr(last - first)
    for block in range(uptr(0), count, BLOCK):
        end = min(block + BLOCK, count)
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
        at = uptr(units[e]) * width
        for n in range(width):
            current[n] += rows[at + n]


@compiled
def _record(membrane, traces, at, some):
    """Record the membranes; return how many are above the threshold."""
    count = 0
    for n in range(some):
        traces[at + n] = membrane[n]
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _above(membrane, some):
    """Return how many membranes are above the threshold."""
    count = 0
    for n in range(some):
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _collect(membrane, first, some, room, spent):
    """Write the neurons above threshold into a room, behind `spent` others; the first neuron's number is `first`."""
    for n in range(some):
        if membrane[n] > membrane.dtype.type(1):
            room[spent] = first + n
            spent += 1


@compiled
def _advance(membrane, current, beta, firing):
    """Advance the membranes by a step; those above threshold are reset, if neurons fire."""
    one, zero = membrane.dtype.type(1), membrane.dtype.type(0)
    if firing:
        for n in range(uptr(membrane.shape[0])):
            reset = one if membrane[n] > one else zero
            membrane[n] = beta * membrane[n] + current[n] - reset
    else:
        for n in range(uptr(membrane.shape[0])):
            membrane[n] = beta * membrane[n] + current[n]


@compiled
def _advance_and_reset(membrane, current, fired, beta):
    for n in range(uptr(membrane.shape[0])):
        membrane[n] = beta * membrane[n] + current[n] - fired[n]


@compiled
def respond(
    begin, end, first, last, shape, offsets, units, weight, drive, recurrent, alpha, beta, traces, firing, counts, room
):
    """Run samples `begin` to `end` through neurons `first` to `last` of a layer of the twin.

    Args:
        shape: T, B, N.
        offsets, units: input events. weight: [N, J]. Without inputs as events, weight is empty, and `drive` in use:
            [T, B, N], summed weights of each step's inputs.
        recurrent: [N, N] weights; empty without. With them, all neurons run together.
        alpha, beta: decay of synaptic current and membrane per step.
        traces: [T, B, N] (out); empty if not wanted. firing: whether neurons fire.
        counts: [B, T], these neurons' spikes of each step (out). room: which of them spiked, in order (out).
    """
    steps, batch, neurons = shape
    some, width = uptr(last - first), padded(last - first)
    from_events, feeding = weight.shape[0] > 0, recurrent.shape[0] > 0
    rows = columns_of(weight, first, last if from_events else first, width)
    own = columns_of(recurrent, first, last if feeding else first, width)
    driven, trace = drive.reshape(-1), traces.reshape(-1)
    current, membrane = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    spent = 0
    for b in range(begin, end):
        current[:], membrane[:] = 0, 0
        for t in range(steps):
            at, row = uptr((t * batch + b) * neurons + first), b * steps + t
            count = _record(membrane, trace, at, some) if trace.shape[0] > 0 else _above(membrane, some)
            if from_events:
                _arrive(current, alpha, rows, units, offsets[row], offsets[row + 1])
            else:
                decay(current, alpha)
                add_row(current, driven, at, some)
            if firing:
                counts[b, t] = count
                if count > 0:
                    _collect(membrane, first, some, room, spent)
                    if feeding:
                        for i in range(spent, spent + count):
                            add_row(current, own, uptr(room[i]) * width, width)
                    spent += count
            _advance(membrane, current, beta, firing)


@compiled
def follow(begin, end, offsets, units, weight, drive, recurrent, fired_offsets, fired_units, alpha, beta, traces):
    """Run samples `begin` to `end` through a layer of the twin whose spikes are given.

    Args:
        offsets, units, weight, drive, recurrent, alpha, beta: as of `respond`.
        fired_offsets, fired_units: the layer's spikes, at most one per neuron and step.
        traces: [T, B, N] (out).
    """
    steps, batch, neurons = traces.shape
    some, width, one = uptr(neurons), padded(neurons), traces.dtype.type(1)
    from_events, feeding = weight.shape[0] > 0, recurrent.shape[0] > 0
    rows = columns_of(weight, 0, neurons if from_events else 0, width)
    own = columns_of(recurrent, 0, neurons if feeding else 0, width)
    driven, trace = drive.reshape(-1), traces.reshape(-1)
    current, membrane = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    fired = np.zeros(width, traces.dtype)
    for b in range(begin, end):
        current[:], membrane[:] = 0, 0
        for t in range(steps):
            at, row = uptr((t * batch + b) * neurons), b * steps + t
            _record(membrane, trace, at, some)
            if from_events:
                _arrive(current, alpha, rows, units, offsets[row], offsets[row + 1])
            else:
                decay(current, alpha)
                add_row(current, driven, at, some)
            for e in range(fired_offsets[row], fired_offsets[row + 1]):
                fired[uptr(fired_units[e])] = one
                if feeding:
                    add_row(current, own, uptr(fired_units[e]) * width, width)
            _advance_and_reset(membrane, current, fired, beta)
            for e in range(fired_offsets[row], fired_offsets[row + 1]):
                fired[uptr(fired_units[e])] = 0
