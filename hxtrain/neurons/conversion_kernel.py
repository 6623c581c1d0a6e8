"""Loops that convert events, grids and codes, compiled for the CPU with numba (decision 0008).

Shape letters: `T` steps, `B` samples, `J` sources, `N` neurons, `E` events. Events are grouped by sample and step:
those of sample b in step t are `units[offsets[b * T + t]:offsets[b * T + t + 1]]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, compiled, exact, uptr


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
def group_events(
    sample: Int,
    unit: Int,
    time: Float,
    samples: int,
    sources: int,
    dt: float,
    tolerance: float,
    offsets: Int,
    units: Int,
) -> int:
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
def bin_spikes(
    sample: Int,
    unit: Int,
    time: Float,
    samples: int,
    neurons: int,
    dt: float,
    tolerance: float,
    offsets: Int,
    units: Int,
) -> int:
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
def to_grid(offsets: Int, units: Int, grid: npt.NDArray[Any]) -> None:
    """Write 1 for each event into a grid [T, B, N] of zeros."""
    for b in range(grid.shape[1]):
        for t in range(grid.shape[0]):
            row = b * grid.shape[0] + t
            for e in range(offsets[row], offsets[row + 1]):
                grid[t, b, units[e]] = 1


@exact
def count_grid(offsets: Int, units: Int, first: int, grid: npt.NDArray[np.float32]) -> None:
    """Count the events of the steps from `first` on in a grid [W, B, J] of zeros."""
    samples = grid.shape[1]
    if samples == 0:
        return
    steps = (offsets.shape[0] - 1) // samples
    for b in range(samples):
        for t in range(grid.shape[0]):
            row = b * steps + first + t
            for e in range(offsets[row], offsets[row + 1]):
                grid[t, b, units[e]] += 1


@exact
def count_events(offsets: Int, units: Int, steps: int, counts: npt.NDArray[np.float32]) -> None:
    """Count the events of each source in each sample, [B, N] (out)."""
    counts[:] = 0
    for b in range(counts.shape[0]):
        for e in range(offsets[b * steps], offsets[(b + 1) * steps]):
            counts[b, units[e]] += 1


@compiled
def membranes(begin: int, end: int, codes: npt.NDArray[np.uint8], unit: np.float32, traces: Float) -> None:
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
