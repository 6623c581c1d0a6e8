"""Loops of eligibilities, compiled for the CPU with numba (decision 0008); `eligibility.py` has the equations.

Each call takes a part of the neurons, and all samples. The innermost loops run over neurons, whose numbers lie side by
side in flat arrays, and become vector instructions. Shape letters: `W` steps of a window, `B` samples, `J` sources, `N`
neurons.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, Number, compiled, exact, uptr

Index = npt.NDArray[np.int32]
Patterns = npt.NDArray[np.signedinteger[Any]]
PART = 16
"""Sources of a grid that are skipped together where none has an event."""


class Events(NamedTuple):
    """Events of the sources in a window, in order of sample and step.

    Attributes:
        offsets: Start of the events of each sample, and their number, int64 `[B + 1]`.
        steps: Step of each event, int32 `[E]`.
        sources: Source of each event, int32 `[E]`.
        numbers: Number of events of the source in the step `[E]`.
    """

    offsets: Int
    steps: Index
    sources: Index
    numbers: Float


class Factors(NamedTuple):
    """What meets at the synapses in a window.

    Attributes:
        inputs: Events of the sources.
        slopes: Surrogate derivatives of the neurons `[W, B, N]`; empty for a readout, whose derivative is 1.
        signals: Learning signals of the neurons `[W, B, N]`.
        direct: Further learning signals, which meet the eligibilities of their own step `[W, B, N]`; empty for none.
    """

    inputs: Events
    slopes: Float
    signals: Float
    direct: Float


class Decays(NamedTuple):
    """Decays per step.

    Attributes:
        current: Decay of the current in the trace of a source.
        potential: Decay of the potential in the trace of a source.
        rise: Decay of the first stage of the filter of eligibilities.
        decay: Decay of its second stage.
    """

    current: Number
    potential: Number
    rise: Number
    decay: Number


class State(NamedTuple):
    """State at the start of a window, and in the same arrays at its end; empty arrays for zeros that stay zero.

    Attributes:
        currents: Currents of the traces of the sources `[B, J]`.
        potentials: Potentials of the traces `[B, J]`.
        rises: First stage of the filtered eligibilities `[B, J, N]`.
        eligibilities: Filtered eligibilities `[B, J, N]`.
    """

    currents: Float
    potentials: Float
    rises: Float
    eligibilities: Float


@compiled
def _back_step(x, source, y, target, filtered, outer, inner, width):
    """Carry the gradient `x` of a filter's result one step back to its input `y`; rows begin at `source`, `target`.

    The filter is `c[t+1] = inner c[t] + input[t]`, `m[t+1] = outer m[t] + c[t+1]`. After the first step, row 0 of
    `filtered [3, width]` is the gradient of m at the start, and row 1 that of c; row 2 is for the step before.
    """
    for n in range(width):
        c = filtered[uptr(2) * width + n]
        m = x[source + n] + outer * filtered[n]
        y[target + n] = c
        filtered[n] = m
        filtered[width + n] = inner * c
        filtered[uptr(2) * width + n] = m + inner * c


@exact
def _is_empty(patterns, start, end):
    joint = patterns[start]
    for i in range(start, end):
        joint |= patterns[i]
    return joint == 0


@exact
def events_of(inputs: Float, patterns: Patterns, offsets: Int, steps: Index, sources: Index, numbers: Float) -> None:
    """Write the events of a grid `[W, B, J]` in order of sample and step, and fill `offsets [B + 1]`.

    `patterns` are the bits of the grid `[W B J]`, which show at once that a part of a row is empty.
    """
    count = 0
    n_steps, samples, n_sources = inputs.shape
    for b in range(samples):
        offsets[b] = count
        for u in range(n_steps):
            row = (u * samples + b) * n_sources
            for first in range(0, n_sources, PART):
                last = min(first + PART, n_sources)
                if _is_empty(patterns, uptr(row + first), uptr(row + last)):
                    continue
                for j in range(first, last):
                    if inputs[u, b, j] != 0:
                        steps[count] = u
                        sources[count] = j
                        numbers[count] = inputs[u, b, j]
                        count += 1
    offsets[samples] = count


@compiled
def _add_events(target, base, stride, events, b, rows, width):
    """Add to the rows `base + j stride` of the sources j the rows of the steps in which they have events."""
    for e in range(events.offsets[b], events.offsets[b + 1]):
        x = events.numbers[e]
        row = uptr(events.steps[e]) * width
        start = base + uptr(events.sources[e]) * stride
        for n in range(width):
            target[start + n] += x * rows[row + n]


@compiled
def _add_traces(target, base, stride, state, b, filtered, width):
    """Add to the rows `base + j stride` what the traces at the start of the window contribute."""
    for j in range(state.currents.shape[1]):
        x = state.potentials[b, j]
        y = state.currents[b, j]
        if x != 0 or y != 0:
            start = base + uptr(j) * stride
            for n in range(width):
                target[start + n] += x * filtered[n] + y * filtered[width + n]


@compiled
def _add_products(target, start, filtered, x, y, source, width):
    """Add the products of rows 0 and 1 of `filtered` with x and y, whose rows begin at `source`."""
    for n in range(width):
        target[start + n] += filtered[n] * x[source + n] + filtered[width + n] * y[source + n]


@compiled
def _decay_pair(rises, eligibilities, start, rise, decay, carry, width):
    for n in range(width):
        c = rises[start + n]
        eligibilities[start + n] = decay * eligibilities[start + n] + carry * c
        rises[start + n] = rise * c


@compiled
def _copy_row(row, values, start, width):
    for n in range(width):
        row[n] = values[start + n]


@compiled
def _add_row(row, values, start, width):
    for n in range(width):
        row[n] += values[start + n]


@compiled
def _multiply_row(row, values, start, width):
    for n in range(width):
        row[n] *= values[start + n]


@compiled
def _scale_row(row, values, start, factor, width):
    for n in range(width):
        row[n] = factor * values[start + n]


@compiled
def _responses(steps, outer, inner):
    """Return the responses of both stages of a filter, after the window, to an input in each of its steps.

    Returns:
        Response of m `[W]`, and of c `[W]`.
    """
    late = np.empty(steps, np.float64)
    early = np.empty(steps, np.float64)
    c = 1.0
    m = 1.0
    for r in range(steps - 1, -1, -1):
        late[r] = m
        early[r] = c
        c *= inner
        m = outer * m + c
    return late, early


@compiled
def observe(
    first: int,
    last: int,
    factors: Factors,
    decays: Decays,
    state: State,
    is_filtered: bool,
    is_first: bool,
    is_last: bool,
    gradient: Float,
) -> None:
    """Add the gradient of neurons `first` to `last` in a window, and move their eligibilities to its end.

    Args:
        first: First neuron.
        last: End of the neurons.
        factors: Factors of the window.
        decays: Decays per step.
        state: State at the start of the window; the eligibilities are changed, the traces are not.
        is_filtered: Whether learning signals meet filtered eligibilities; if not, they meet those of their own step.
        is_first: Whether the state is that of the start of a trial, all zeros.
        is_last: Whether the state at the end of the window is not needed.
        gradient: Sums of learning signals and eligibilities `[J, N]` (in and out).
    """
    steps, samples, neurons = factors.signals.shape
    events = factors.inputs
    sources = gradient.shape[0]
    dtype = factors.signals.dtype
    kind = dtype.type
    width = uptr(last - first)
    stride = uptr(neurons)
    signals = factors.signals.reshape(-1)
    slopes = factors.slopes.reshape(-1)
    direct = factors.direct.reshape(-1)
    flat_gradient = gradient.reshape(-1)
    rises = state.rises.reshape(-1)
    eligibilities = state.eligibilities.reshape(-1)
    local = np.empty(width, dtype)
    charge = np.empty(uptr(steps) * width, dtype)
    by_trace = np.empty(uptr(3) * width, dtype)
    by_state = np.empty(uptr(3) * width, dtype)
    late, early = _responses(steps, decays.decay, decays.rise)
    stage_decay = kind(decays.decay**steps)
    stage_rise = kind(decays.rise**steps)
    carry = kind(decays.rise * late[0])
    for b in range(samples):
        by_trace[:] = 0
        by_state[:] = 0
        for k in range(steps - 1, -1, -1):
            start = uptr((k * samples + b) * neurons + first)
            if is_filtered:
                _back_step(signals, start, local, uptr(0), by_state, decays.decay, decays.rise, width)
            else:
                _copy_row(local, signals, start, width)
            if direct.shape[0] > 0:
                _add_row(local, direct, start, width)
            if slopes.shape[0] > 0:
                _multiply_row(local, slopes, start, width)
            row = uptr(k) * width
            _back_step(local, uptr(0), charge, row, by_trace, decays.potential, decays.current, width)
        _add_events(flat_gradient, uptr(first), stride, events, b, charge, width)
        base = uptr(b * sources * neurons + first)
        if not is_first:
            _add_traces(flat_gradient, uptr(first), stride, state, b, by_trace, width)
            if is_filtered:
                for j in range(uptr(sources)):
                    row = base + j * stride
                    _add_products(flat_gradient, uptr(first) + j * stride, by_state, eligibilities, rises, row, width)
                    if not is_last:
                        _decay_pair(rises, eligibilities, row, stage_rise, stage_decay, carry, width)
        if is_last or not is_filtered:
            continue
        for stage in range(2):
            target = eligibilities if stage == 0 else rises
            responses = late if stage == 0 else early
            by_trace[:] = 0
            for k in range(steps - 1, -1, -1):
                start = uptr((k * samples + b) * neurons + first)
                _scale_row(local, slopes, start, kind(responses[k]), width)
                row = uptr(k) * width
                _back_step(local, uptr(0), charge, row, by_trace, decays.potential, decays.current, width)
            _add_events(target, base, stride, events, b, charge, width)
            if not is_first:
                _add_traces(target, base, stride, state, b, by_trace, width)


@compiled
def advance(steps: int, events: Events, decays: Decays, state: State) -> None:
    """Move the traces of the sources to the end of a window."""
    samples, sources = state.currents.shape
    for b in range(samples):
        e = events.offsets[b]
        for u in range(steps):
            for j in range(sources):
                state.currents[b, j] *= decays.current
            while e < events.offsets[b + 1] and events.steps[e] == u:
                state.currents[b, events.sources[e]] += events.numbers[e]
                e += 1
            for j in range(sources):
                state.potentials[b, j] = decays.potential * state.potentials[b, j] + state.currents[b, j]
