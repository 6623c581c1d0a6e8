"""Loops of a layer's backward pass, compiled for the CPU with numba (decision 0008).

As in `kernels.py`, whose conventions hold here, too. `injection.py` and `saturation.py` say the same in torch.
"""

from __future__ import annotations

import numpy as np

from .kernels import add_row, columns_of, compiled, decay, padded, uptr

SUPERSPIKE, TRIANGLE, SIGMOID, GAUSSIAN, ARCTAN, BOXCAR = range(6)


@compiled
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


@compiled
def _distance(distance, traces, at, some):
    """Write the membranes' distances from the threshold."""
    one = distance.dtype.type(1)
    for n in range(some):
        distance[n] = traces[at + n] - one


@compiled
def _at_threshold(distance, fired, begin, end, first, some):
    """Set the distance to zero where a spike says that the membrane was at the threshold."""
    for e in range(begin, end):
        n = uptr(fired[e] - first)  # very large for those before the first
        if n < some:
            distance[n] = 0


@compiled
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


@compiled
def _back(through, membrane, charge, now, before, alpha, beta):
    """Carry the gradient of the membranes one step back, and that of the charges with it."""
    for n in range(uptr(membrane.shape[0])):
        x = beta * membrane[n] + through[n]
        membrane[n] = x
        charge[before + n] = alpha * charge[now + n] + x


@compiled
def _add_to_row(rows, at, charge, now, width):
    for n in range(width):
        rows[at + n] += charge[now + n]


@compiled
def _cut(weight, first, last, width):
    """Return the columns `first` to `last` of weights as padded rows, flat."""
    columns, some = np.zeros(uptr(weight.shape[0]) * width, weight.dtype), uptr(last - first)
    for m in range(weight.shape[0]):
        columns[uptr(m) * width : uptr(m) * width + some] = weight[m, first:last]
    return columns


@compiled
def _write_rows(weight, first, last, columns, width):
    """Write padded columns as rows `first` to `last` of weights `[N, J]`: what `columns_of` returns, back."""
    for n in range(first, last):
        for j in range(uptr(weight.shape[1])):
            weight[n, j] = columns[j * width + uptr(n - first)]


@compiled
def _flat(traces, grad_spikes, grad_counts, grad_traces, behind, charges):
    """Return all of these as flat arrays."""
    return (
        traces.reshape(-1), grad_spikes.reshape(-1), grad_counts.reshape(-1), grad_traces.reshape(-1),
        behind.reshape(-1), charges.reshape(-1),
    )  # fmt: skip


@compiled
def _direct(
    through, distance, by_spike, by_count, by_trace, charge_behind, columns, trace, fired_offsets, fired, row, first,
    at, sample, row_behind, some, kind, slope,
):  # fmt: skip
    """Write the gradient of one step's membranes, later steps aside: that of the loss, and through the layer behind.

    Args:
        row: of this step in `fired_offsets`. first: the first neuron.
        at, sample, row_behind: where this step's values begin in `[T, B, N]`, `[B, N]` and in the charges behind.
    """
    through[:] = 0
    if charge_behind.shape[0] > 0:
        _products(through, charge_behind, row_behind, columns)
    if by_spike.shape[0] > 0:
        add_row(through, by_spike, at, some)
    if by_count.shape[0] > 0:
        add_row(through, by_count, sample, some)
    if charge_behind.shape[0] > 0 or by_spike.shape[0] > 0 or by_count.shape[0] > 0:
        _distance(distance, trace, at, some)
        if fired_offsets.shape[0] > 0:
            _at_threshold(distance, fired, fired_offsets[row], fired_offsets[row + 1], first, some)
        _surrogate(kind, through, distance, slope)
    if by_trace.shape[0] > 0:
        add_row(through, by_trace, at, some)


@compiled
def gradient(
    first, last, offsets, units, fired_offsets, fired, traces, grad_spikes, grad_counts, grad_traces, behind, weight,
    kind, slope, alpha, beta, charges, grad_weight,
):  # fmt: skip
    """Carry the gradient of neurons `first` to `last` back through a layer without recurrence, all samples.

    Args:
        offsets, units: input events; in use with `grad_weight`.
        fired_offsets, fired: spikes as measured, at which the membrane is taken to be at its threshold; empty for none.
        traces: as measured, [T, B, N].
        grad_spikes, grad_traces: gradients of the loss, [T, B, N] each; empty for none.
        grad_counts: its gradient with respect to the number of spikes, [B, N]; empty for none.
        behind, weight: charges [T, B, M] and weights [M, N] of the layer behind, another gradient of the spikes;
            empty for none.
        kind, slope: surrogate. alpha, beta: decay of synaptic current and membrane per step.
        charges: gradient of the charge that arrives in each step, [T, B, N] (out); empty if not wanted.
        grad_weight: [N, J] (out); empty if not wanted.
    """
    steps, batch, neurons = traces.shape
    some, width = uptr(last - first), padded(last - first)
    trace, by_spike, by_count, by_trace, charge_behind, out = _flat(
        traces, grad_spikes, grad_counts, grad_traces, behind, charges
    )
    charge, distance = np.zeros(uptr(steps) * width, traces.dtype), np.zeros(width, traces.dtype)
    membrane, through = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    columns = _cut(weight, first, last, width)
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, traces.dtype)
    for b in range(batch):
        membrane[:] = 0
        charge[uptr(steps - 1) * width :] = 0
        for t in range(steps - 1, 0, -1):
            _direct(
                through, distance, by_spike, by_count, by_trace, charge_behind, columns, trace, fired_offsets, fired,
                b * steps + t, first, uptr((t * batch + b) * neurons + first), uptr(b * neurons + first),
                uptr((t * batch + b) * behind.shape[2]), some, kind, slope,
            )  # fmt: skip
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
    if grad_weight.shape[0] > 0:
        _write_rows(grad_weight, first, last, rows, width)


# Backward, where synaptic inputs saturate (saturation.py)


@compiled
def _add_signs(current, exc, inh, weight, at, width):
    """Add weights to the currents of excitation and inhibition."""
    zero = current.dtype.type(0)
    for n in range(width):
        current[exc + n] += max(weight[at + n], zero)
    for n in range(width):
        current[inh + n] -= min(weight[at + n], zero)


@compiled
def _saturation(slopes, at, current, inverse):
    """Write the slopes of the saturation, `1 - tanh(I / limit)^2`, at these currents."""
    number = current.dtype.type
    one, a, b, c, d = number(1), number(945), number(105), number(420), number(15)
    for n in range(uptr(current.shape[0])):
        x = current[n] * inverse
        y = x * x
        tanh = min(x * (a + y * (b + y)) / (a + y * (c + d * y)), one)
        slopes[at + n] = one - tanh * tanh


@compiled
def _back_to_inputs(through, membrane, slopes, charge, now, before, alpha, beta, inputs):
    """Carry the gradient of the membranes one step back, and those of the charges at all synaptic inputs with it."""
    width = uptr(membrane.shape[0])
    for n in range(width):
        membrane[n] = beta * membrane[n] + through[n]
    for g in range(inputs):
        at, to = now + uptr(g) * width, before + uptr(g) * width
        for n in range(width):
            charge[to + n] = alpha * charge[at + n] + slopes[at + n] * membrane[n]


@compiled
def _add_chosen(rows, at, weight, charge, exc, inh, width):
    """Add the gradient of the charges at the input that each weight belongs to."""
    zero = rows.dtype.type(0)
    for n in range(width):
        excited, inhibited = (
            charge[exc + n],
            charge[inh + n],
        )  # both are read, or it would not become vector instructions
        rows[at + n] += excited if weight[at + n] >= zero else inhibited


@compiled
def saturating_gradient(
    first, last, offsets, units, synapses, limit, per_circuit, first_input, inputs, fired_offsets, fired, traces,
    grad_spikes, grad_counts, grad_traces, behind, weight, kind, slope, alpha, beta, charges, grad_weight,
):  # fmt: skip
    """Carry the gradient of neurons `first` to `last` back through a layer whose synaptic inputs saturate.

    Args:
        offsets, units: input events.
        synapses: weights of the layer, [N, J]. limit: synaptic current at which an input saturates.
        per_circuit: signed inputs of a circuit. first_input: that of source 0.
        inputs: number G of synaptic inputs of a neuron, two for each of its circuits, excitation first.
        charges: gradient of the charge that arrives in each step at each input, [T, B, G N] (out); empty if not wanted.
        grad_weight: [N, J] (out).

    All else is as in `gradient`.
    """
    steps, batch, neurons = traces.shape
    some, width = uptr(last - first), padded(last - first)
    trace, by_spike, by_count, by_trace, charge_behind, out = _flat(
        traces, grad_spikes, grad_counts, grad_traces, behind, charges
    )
    wide, inverse = uptr(inputs) * width, traces.dtype.type(1) / limit
    charge, slopes = np.zeros(uptr(steps) * wide, traces.dtype), np.ones(uptr(steps) * wide, traces.dtype)
    membrane, through = np.zeros(width, traces.dtype), np.zeros(width, traces.dtype)
    distance, current = np.zeros(width, traces.dtype), np.zeros(wide, traces.dtype)
    columns, own = _cut(weight, first, last, width), columns_of(synapses, first, last, width)
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, traces.dtype)
    for b in range(batch):
        current[:] = 0
        for t in range(steps - 1):
            decay(current, alpha)
            for e in range(offsets[b * steps + t], offsets[b * steps + t + 1]):
                exc = uptr((units[e] + first_input) // per_circuit * 2) * width
                _add_signs(current, exc, exc + width, own, uptr(units[e]) * width, width)
            _saturation(slopes, uptr(t + 1) * wide, current, inverse)
        membrane[:] = 0
        charge[uptr(steps - 1) * wide :] = 0
        for t in range(steps - 1, 0, -1):
            _direct(
                through, distance, by_spike, by_count, by_trace, charge_behind, columns, trace, fired_offsets, fired,
                b * steps + t, first, uptr((t * batch + b) * neurons + first), uptr(b * neurons + first),
                uptr((t * batch + b) * behind.shape[2]), some, kind, slope,
            )  # fmt: skip
            _back_to_inputs(through, membrane, slopes, charge, uptr(t) * wide, uptr(t - 1) * wide, alpha, beta, inputs)
        if charges.shape[0] > 0:
            for t in range(steps):
                for g in range(inputs):
                    at = uptr(((t * batch + b) * inputs + g) * neurons + first)
                    now = uptr(t) * wide + uptr(g) * width
                    for n in range(some):
                        out[at + n] = charge[now + n]
        for t in range(steps - 1):
            for e in range(offsets[b * steps + t], offsets[b * steps + t + 1]):
                exc = uptr(t) * wide + uptr((units[e] + first_input) // per_circuit * 2) * width
                _add_chosen(rows, uptr(units[e]) * width, own, charge, exc, exc + width, width)
    _write_rows(grad_weight, first, last, rows, width)
