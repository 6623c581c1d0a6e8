"""Loops of eligibilities, compiled for the CPU with numba (decision 0008); `eligibility.py` has the equations.

Each call takes a part of the neurons, and all samples. The innermost loops run over neurons, whose numbers lie side by
side in flat arrays, and become vector instructions. Shape letters: `W` steps of a window, `B` samples, `J` sources, `N`
neurons.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hxtrain.neurons.jit import Float, Number, compiled, uptr


class Factors(NamedTuple):
    """What meets at the synapses in a window.

    Attributes:
        inputs: Numbers of events of the sources `[W, B, J]`.
        slopes: Surrogate derivatives of the neurons `[W, B, N]`; empty for a readout, whose derivative is 1.
        signals: Learning signals of the neurons `[W, B, N]`.
        direct: Further learning signals, which meet the eligibilities of their own step `[W, B, N]`; empty for none.
    """

    inputs: Float
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
def _back_through(x, y, first, second, outer, inner, width):
    """Carry the gradient `x [W, width]` of a filter's result back to its inputs `y [W, width]`.

    The filter is `c[t+1] = inner c[t] + input[t]`, `m[t+1] = outer m[t] + c[t+1]`, and `x` belongs to m. At the end,
    `first` is the gradient of m at the first step, and `second` that of c.
    """
    steps = uptr(x.shape[0]) // width
    for n in range(width):
        first[n] = 0
        second[n] = 0
    for k in range(steps):
        row = (steps - uptr(1) - k) * width
        for n in range(width):
            c = second[n]
            y[row + n] = c
            m = x[row + n] + outer * first[n]
            first[n] = m
            second[n] = m + inner * c
    for n in range(width):
        second[n] = inner * y[n]


@compiled
def _add_events(target, base, stride, inputs, b, rows, width):
    """Add to the rows `base + j stride` of the sources j the rows of the steps in which they have events."""
    steps, _, sources = inputs.shape
    for u in range(steps):
        row = uptr(u) * width
        for j in range(sources):
            x = inputs[u, b, j]
            if x != 0:
                start = base + uptr(j) * stride
                for n in range(width):
                    target[start + n] += x * rows[row + n]


@compiled
def _add_pair(target, start, first, x, second, y, width):
    for n in range(width):
        target[start + n] += x * first[n] + y * second[n]


@compiled
def _add_products(target, start, first, x, second, y, source, width):
    """Add `first x + second y`, elementwise, where x and y are rows at `source`."""
    for n in range(width):
        target[start + n] += first[n] * x[source + n] + second[n] * y[source + n]


@compiled
def _decay_pair(rises, eligibilities, start, rise, decay, carry, width):
    for n in range(width):
        c = rises[start + n]
        eligibilities[start + n] = decay * eligibilities[start + n] + carry * c
        rises[start + n] = rise * c


@compiled
def _copy_part(target, values, b, first, width):
    """Copy the neurons from `first` of sample b `[W, B, N]` to `target [W, width]`."""
    for r in range(values.shape[0]):
        row = uptr(r) * width
        for n in range(width):
            target[row + n] = values[r, b, uptr(first) + n]


@compiled
def _add_part(target, values, b, first, width):
    for r in range(values.shape[0]):
        row = uptr(r) * width
        for n in range(width):
            target[row + n] += values[r, b, uptr(first) + n]


@compiled
def _multiply_part(target, values, b, first, width):
    for r in range(values.shape[0]):
        row = uptr(r) * width
        for n in range(width):
            target[row + n] *= values[r, b, uptr(first) + n]


@compiled
def _multiply_steps(target, source, factors, width):
    """Write the rows of `source`, each multiplied by the factor of its step."""
    for r in range(factors.shape[0]):
        row = uptr(r) * width
        for n in range(width):
            target[row + n] = factors[r] * source[row + n]


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
    inputs, slopes, signals, direct = factors
    steps, samples, neurons = signals.shape
    sources = inputs.shape[2]
    kind = signals.dtype.type
    width = uptr(last - first)
    size = uptr(steps) * width
    local = np.empty(size, signals.dtype)
    charge = np.empty(size, signals.dtype)
    part = np.empty(size, signals.dtype)
    by_potential = np.empty(width, signals.dtype)
    by_current = np.empty(width, signals.dtype)
    by_eligibility = np.empty(width, signals.dtype)
    by_rise = np.empty(width, signals.dtype)
    late, early = _responses(steps, decays.decay, decays.rise)
    stage_decay = kind(decays.decay**steps)
    stage_rise = kind(decays.rise**steps)
    carry = kind(decays.rise * late[0])
    flat_gradient = gradient.reshape(-1)
    rises = state.rises.reshape(-1)
    eligibilities = state.eligibilities.reshape(-1)
    stride = uptr(neurons)
    has_slopes = slopes.shape[0] > 0
    has_direct = direct.shape[0] > 0
    for b in range(samples):
        _copy_part(charge, signals, b, first, width)
        if is_filtered:
            _back_through(charge, local, by_eligibility, by_rise, decays.decay, decays.rise, width)
        else:
            local[:] = charge
        if has_direct:
            _add_part(local, direct, b, first, width)
        if has_slopes:
            _multiply_part(local, slopes, b, first, width)
        _back_through(local, charge, by_potential, by_current, decays.potential, decays.current, width)
        _add_events(flat_gradient, uptr(first), stride, inputs, b, charge, width)
        base = uptr(b * sources * neurons + first)
        if not is_first:
            for j in range(sources):
                start = uptr(first) + uptr(j) * stride
                current = state.currents[b, j]
                potential = state.potentials[b, j]
                if current != 0 or potential != 0:
                    _add_pair(flat_gradient, start, by_potential, potential, by_current, current, width)
                if is_filtered:
                    source = base + uptr(j) * stride
                    _add_products(flat_gradient, start, by_eligibility, eligibilities, by_rise, rises, source, width)
        if is_last or not is_filtered:
            continue
        if not is_first:
            for j in range(sources):
                _decay_pair(rises, eligibilities, base + uptr(j) * stride, stage_rise, stage_decay, carry, width)
        _copy_part(part, slopes, b, first, width)
        for stage in range(2):
            target = eligibilities if stage == 0 else rises
            _multiply_steps(local, part, late if stage == 0 else early, width)
            _back_through(local, charge, by_potential, by_current, decays.potential, decays.current, width)
            _add_events(target, base, stride, inputs, b, charge, width)
            if not is_first:
                for j in range(sources):
                    current = state.currents[b, j]
                    potential = state.potentials[b, j]
                    if current != 0 or potential != 0:
                        start = base + uptr(j) * stride
                        _add_pair(target, start, by_potential, potential, by_current, current, width)


@compiled
def advance(inputs: Float, decays: Decays, state: State) -> None:
    """Move the traces of the sources to the end of a window."""
    steps, samples, sources = inputs.shape
    for b in range(samples):
        for u in range(steps):
            for j in range(sources):
                current = decays.current * state.currents[b, j] + inputs[u, b, j]
                state.currents[b, j] = current
                state.potentials[b, j] = decays.potential * state.potentials[b, j] + current
