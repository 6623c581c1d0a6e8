"""Loops of a layer's backward pass, compiled for the CPU with numba (decision 0008).

As in `kernels.py`, whose conventions hold here, too. `injection.py` and `saturation.py` say the same in torch.
"""

from __future__ import annotations

import numpy as np

from .forward_kernels import BLOCK, columns_of, compiled, decay, padded, to_membrane, uptr

SUPERSPIKE, TRIANGLE, SIGMOID, GAUSSIAN, ARCTAN, BOXCAR = range(6)


@compiled
def _products(x, at, charge, row, columns, behind, width):
    """Write to `x[at + n]` the sum over the neurons m of the layer behind of `charge[row + m] columns[m, n]`.

    In pairs, four of which share a loop: so many can have their distances checked before it.
    """
    for n in range(width):
        x[at + n] = 0
    m, one, two, four, eight = uptr(0), uptr(1), uptr(2), uptr(4), uptr(8)
    while m + eight <= behind:
        i, j = row + m, m * width
        c0, c1, c2, c3 = charge[i], charge[i + one], charge[i + two], charge[i + two + one]
        c4, c5, c6, c7 = charge[i + four], charge[i + four + one], charge[i + four + two], charge[i + eight - one]
        for n in range(width):
            k = j + n
            y = x[at + n] + (c0 * columns[k] + c1 * columns[k + width])
            y += c2 * columns[k + two * width] + c3 * columns[k + (two + one) * width]
            y += c4 * columns[k + four * width] + c5 * columns[k + (four + one) * width]
            x[at + n] = y + (c6 * columns[k + (four + two) * width] + c7 * columns[k + (eight - one) * width])
        m += eight
    while m + two <= behind:
        c0, c1, j = charge[row + m], charge[row + m + one], m * width
        for n in range(width):
            x[at + n] += c0 * columns[j + n] + c1 * columns[j + width + n]
        m += two
    if m < behind:
        c0, j = charge[row + m], m * width
        for n in range(width):
            x[at + n] += c0 * columns[j + n]


@compiled
def _from_behind(x, steps, charge, at, stride, columns, behind, width):
    """Write to `x [T, W]` what the charges of the layer behind, at `at + t stride`, say of the spikes of each step.

    Late charges are often zero: nothing depends on a readout behind its maximum.
    """
    for t in range(uptr(steps)):
        row, silent = at + t * stride, True
        for m in range(behind):
            if charge[row + m] != 0:
                silent = False
        if silent:
            x[t * width : (t + uptr(1)) * width] = 0
        else:
            _products(x, t * width, charge, row, columns, behind, width)


@compiled
def _add_rows(x, steps, rows, at, stride, some, width):
    """Add to `x [T, W]` the rows at `at + t stride`."""
    for t in range(uptr(steps)):
        for n in range(some):
            x[t * width + n] += rows[at + t * stride + n]


@compiled
def _distances(distance, steps, traces, at, stride, some, width):
    """Write the membranes' distances from the threshold `[T, W]`."""
    one = distance.dtype.type(1)
    for t in range(uptr(steps)):
        for n in range(some):
            distance[t * width + n] = traces[at + t * stride + n] - one


@compiled
def _distances_of_codes(distance, steps, codes, at, stride, scale, some, width):
    """The same of codes at `at + t stride`; in two loops, since the membrane's rounding is a part of it."""
    one, rest = distance.dtype.type(1), np.empty(some, distance.dtype)
    for n in range(some):
        rest[n] = codes[at + n]
    for t in range(uptr(steps)):
        to_membrane(codes[at + t * stride :], rest, scale, distance, t * width)
    for n in range(uptr(distance.shape[0])):
        distance[n] -= one


@compiled
def _at_threshold(distance, steps, fired_offsets, fired, row, first, some, width):
    """Set the distance to zero where a spike says that the membrane was at the threshold."""
    for t in range(uptr(steps)):
        for e in range(fired_offsets[row + t], fired_offsets[row + t + 1]):
            n = uptr(fired[e] - first)  # very large for those before the first
            if n < some:
                distance[t * width + n] = 0


@compiled
def _surrogate(kind, distance, slope):
    """Turn distances from the threshold into surrogate derivatives (`surrogate.py`)."""
    number = distance.dtype.type
    one, zero, four, half = number(1), number(0), number(4), number(0.5)
    if kind == SUPERSPIKE:
        for n in range(uptr(distance.shape[0])):
            y = one + slope * abs(distance[n])
            distance[n] = one / (y * y)
        return
    for n in range(uptr(distance.shape[0])):
        y = slope * distance[n]
        if kind == TRIANGLE:
            distance[n] = max(one - abs(y), zero)
        elif kind == SIGMOID:
            s = one / (one + np.exp(-y))
            distance[n] = four * s * (one - s)
        elif kind == GAUSSIAN:
            distance[n] = np.exp(-half * y * y)
        elif kind == ARCTAN:
            distance[n] = one / (one + y * y)
        else:
            distance[n] = one if abs(y) < one else zero


@compiled
def _multiply(x, factor):
    for n in range(uptr(x.shape[0])):
        x[n] *= factor[n]


@compiled
def _back(x, membrane, charge, now, before, alpha, beta):
    """Carry the gradient of the membranes one step back, and that of the charges with it."""
    for n in range(uptr(membrane.shape[0])):
        m = beta * membrane[n] + x[now + n]
        membrane[n] = m
        charge[before + n] = alpha * charge[now + n] + m


@compiled
def _add_to_rows(rows, charge, steps, offsets, units, row, width):
    """Add the charges of each step to the rows of its events."""
    for t in range(uptr(steps - 1)):
        for e in range(offsets[row + t], offsets[row + t + 1]):
            at, now = uptr(units[e]) * width, t * width
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
    rows, inputs = weight.reshape(-1), uptr(weight.shape[1])
    for block in range(uptr(0), inputs, BLOCK):
        end = min(block + BLOCK, inputs)
        for n in range(uptr(last - first)):
            for j in range(block, end):
                rows[(uptr(first) + n) * inputs + j] = columns[j * width + n]


@compiled
def _direct(
    x, distance, b, first, some, width, shape, fired_offsets, fired, traces, codes, strides, scale, grad_spikes,
    grad_counts, grad_traces, behind, columns, kind, slope,
):  # fmt: skip
    """Write the gradient of a sample's membranes `x [T, W]`, later steps aside: that of the loss, and through the layer
    behind. `distance` is scratch space of the same size; all else is as in `gradient`, for sample b.
    """
    steps, batch, neurons = shape
    at, stride = uptr(b * neurons + first), uptr(batch * neurons)
    after, from_behind = uptr(behind.shape[2]), behind.shape[0] > 0
    if from_behind:
        place, step = uptr(b) * after, uptr(batch) * after
        _from_behind(x, steps, behind.reshape(-1), place, step, columns, after, width)
    else:
        x[:] = 0
    if grad_spikes.shape[0] > 0:
        _add_rows(x, steps, grad_spikes.reshape(-1), at, stride, some, width)
    if grad_counts.shape[0] > 0:
        _add_rows(x, steps, grad_counts.reshape(-1), at, uptr(0), some, width)
    if from_behind or grad_spikes.shape[0] > 0 or grad_counts.shape[0] > 0:
        if codes.shape[0] > 0:
            begin = uptr(b * strides[0] + first)
            _distances_of_codes(distance, steps, codes, begin, uptr(strides[1]), scale, some, width)
        else:
            _distances(distance, steps, traces.reshape(-1), at, stride, some, width)
        if fired_offsets.shape[0] > 0:
            _at_threshold(distance, steps, fired_offsets, fired, b * steps, first, some, width)
        _surrogate(kind, distance, slope)
        _multiply(x, distance)
    if grad_traces.shape[0] > 0:
        _add_rows(x, steps, grad_traces.reshape(-1), at, stride, some, width)


@compiled
def gradient(
    first, last, offsets, units, shape, fired_offsets, fired, traces, codes, strides, scale, grad_spikes, grad_counts,
    grad_traces, behind, weight, kind, slope, alpha, beta, charges, grad_weight,
):  # fmt: skip
    """Carry the gradient of neurons `first` to `last` back through a layer without recurrence, all samples.

    Args:
        offsets, units: input events; in use with `grad_weight`. shape: T, B, N.
        fired_offsets, fired: spikes as measured, at which the membrane is taken to be at its threshold; empty for none.
        traces: membranes as measured, [T, B, N]. codes, strides, scale: if there are any, membranes are `scale` times
            these codes instead; flat, trials and samples `strides` apart.
        grad_spikes, grad_traces: gradients of the loss, [T, B, N] each; empty for none.
        grad_counts: its gradient with respect to the number of spikes, [B, N]; empty for none.
        behind, weight: charges [T, B, M] and weights [M, N] of the layer behind, another gradient of the spikes;
            empty for none.
        kind, slope: surrogate. alpha, beta: decay of synaptic current and membrane per step.
        charges: gradient of the charge that arrives in each step, [T, B, N] (out); empty if not wanted.
        grad_weight: [N, J] (out); empty if not wanted.
    """
    steps, batch, neurons = shape
    some, width = uptr(last - first), padded(last - first)
    out, size = charges.reshape(-1), uptr(steps) * width
    charge, distance, x = np.zeros(size, traces.dtype), np.zeros(size, traces.dtype), np.zeros(size, traces.dtype)
    membrane, columns = np.zeros(width, traces.dtype), _cut(weight, first, last, width)
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, traces.dtype)
    for b in range(batch):
        _direct(
            x, distance, b, first, some, width, shape, fired_offsets, fired, traces, codes, strides, scale, grad_spikes,
            grad_counts, grad_traces, behind, columns, kind, slope,
        )  # fmt: skip
        membrane[:] = 0
        for t in range(uptr(steps - 1), uptr(0), -1):
            _back(x, membrane, charge, uptr(t) * width, uptr(t - 1) * width, alpha, beta)
        if charges.shape[0] > 0:
            for t in range(steps):
                at, now = uptr((t * batch + b) * neurons + first), uptr(t) * width
                for n in range(some):
                    out[at + n] = charge[now + n]
        if grad_weight.shape[0] > 0:
            _add_to_rows(rows, charge, steps, offsets, units, b * steps, width)
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
def _back_to_inputs(x, membrane, slopes, charge, here, now, before, alpha, beta, inputs):
    """Carry the gradient of the membranes one step back, and those of the charges at all synaptic inputs with it."""
    width = uptr(membrane.shape[0])
    for n in range(width):
        membrane[n] = beta * membrane[n] + x[here + n]
    for g in range(inputs):
        at, to = now + uptr(g) * width, before + uptr(g) * width
        for n in range(width):
            charge[to + n] = alpha * charge[at + n] + slopes[at + n] * membrane[n]


@compiled
def _add_chosen(rows, at, weight, charge, exc, inh, width):
    """Add the gradient of the charges at the input that each weight belongs to."""
    zero = rows.dtype.type(0)
    for n in range(width):
        # both are read, or it would not become vector instructions
        excited, inhibited = charge[exc + n], charge[inh + n]
        rows[at + n] += excited if weight[at + n] >= zero else inhibited


@compiled
def saturating_gradient(
    first, last, offsets, units, synapses, limit, per_circuit, first_input, inputs, shape, fired_offsets, fired, traces,
    codes, strides, scale, grad_spikes, grad_counts, grad_traces, behind, weight, kind, slope, alpha, beta, charges,
    grad_weight,
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
    steps, batch, neurons = shape
    some, width = uptr(last - first), padded(last - first)
    out = charges.reshape(-1)
    wide, inverse = uptr(inputs) * width, traces.dtype.type(1) / limit
    charge, slopes = np.zeros(uptr(steps) * wide, traces.dtype), np.ones(uptr(steps) * wide, traces.dtype)
    membrane, current = np.zeros(width, traces.dtype), np.zeros(wide, traces.dtype)
    distance, x = np.zeros(uptr(steps) * width, traces.dtype), np.zeros(uptr(steps) * width, traces.dtype)
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
        _direct(
            x, distance, b, first, some, width, shape, fired_offsets, fired, traces, codes, strides, scale, grad_spikes,
            grad_counts, grad_traces, behind, columns, kind, slope,
        )  # fmt: skip
        membrane[:] = 0
        for t in range(steps - 1, 0, -1):
            _back_to_inputs(
                x, membrane, slopes, charge, uptr(t) * width, uptr(t) * wide, uptr(t - 1) * wide, alpha, beta, inputs
            )
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
