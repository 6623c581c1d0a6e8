"""Loops of a recurrent layer's backward pass, compiled for the CPU with numba (decision 0022).

Samples are independent, neurons are not: a thread takes samples, four at a time, since rows of recurrent weights that
are read once then serve four sums. Steps are taken in chunks from the last to the first, so that memory does not grow
with their number. The gradients of weights follow from the charges, and there a thread takes neurons: no sum depends on
the number of threads.

The conventions of `cpu_forward.py` hold. `readable.py` and `saturation.py` say the same in torch. A layer without
saturation has one synaptic input per neuron, `G = 1`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hxtrain.neurons.jit import Float, Number, compiled, uptr

from .cpu_backward import MeasuredPass, add_to_rows, cut, direct, write_rows
from .cpu_forward import Groups, columns_of, decay, padded
from .cpu_held import free_shares, hold_back
from .cpu_saturating import add_charges, arrive, saturation_slopes

QUAD = uptr(4)
"""Samples whose products with the recurrent weights share a loop."""
CHUNK = 16
"""Steps whose gradients are in the cache at once."""


class RecurrentSynapses(NamedTuple):
    """Synapses of a recurrent layer.

    Attributes:
        weight: Weights of the inputs, `[N, J]`; empty without saturation.
        feedback: Recurrent weights, `[N, N]`.
        feedback_current: Recurrent weights in the units of `limit`, `[N, N]`; empty without saturation.
        limit: Synaptic current at which an input saturates; unused without saturation.
        per_circuit: Number of signed inputs of a circuit; 0 without saturation.
        first_input: Signed input of source 0.
        first_recurrent: Signed input of neuron 0.
        inputs: Number G of synaptic inputs of a neuron: two for each of its circuits, excitation first; 1 without
            saturation.
    """

    weight: Float
    feedback: Float
    feedback_current: Float
    limit: Number
    per_circuit: int
    first_input: int
    first_recurrent: int
    inputs: int


class RecurrentResults(NamedTuple):
    """Where the gradients of a recurrent layer's weights are written; empty arrays for those that nobody needs.

    Attributes:
        weight: Gradient of the weights of the inputs, `[N, J]`.
        feedback: Gradient of the recurrent weights, `[N, N]`.
    """

    weight: Float
    feedback: Float


@compiled
def _quad_products(x, start, stride, charge, row, wide, columns, base, n_rows, width):
    """Write to `x[start + s stride + n]`, for four samples s, the sums over m of
    `charge[row + s wide + m] columns[base + m width + n]`.

    The number of rows is a multiple of four.
    """
    single = uptr(1)
    pair = uptr(2)
    triple = uptr(3)
    for s in range(QUAD):
        for n in range(width):
            x[start + s * stride + n] = 0
    for m in range(uptr(0), n_rows, QUAD):
        a = row + m
        b = a + wide
        c = b + wide
        d = c + wide
        a0 = charge[a]
        a1 = charge[a + single]
        a2 = charge[a + pair]
        a3 = charge[a + triple]
        b0 = charge[b]
        b1 = charge[b + single]
        b2 = charge[b + pair]
        b3 = charge[b + triple]
        c0 = charge[c]
        c1 = charge[c + single]
        c2 = charge[c + pair]
        c3 = charge[c + triple]
        d0 = charge[d]
        d1 = charge[d + single]
        d2 = charge[d + pair]
        d3 = charge[d + triple]
        j = base + m * width
        for n in range(width):
            k = j + n
            v0 = columns[k]
            v1 = columns[k + width]
            v2 = columns[k + pair * width]
            v3 = columns[k + triple * width]
            i = start + n
            x[i] += (a0 * v0 + a1 * v1) + (a2 * v2 + a3 * v3)
            x[i + stride] += (b0 * v0 + b1 * v1) + (b2 * v2 + b3 * v3)
            x[i + pair * stride] += (c0 * v0 + c1 * v1) + (c2 * v2 + c3 * v3)
            x[i + triple * stride] += (d0 * v0 + d1 * v1) + (d2 * v2 + d3 * v3)


@compiled
def _products(x, start, charge, row, columns, base, n_rows, width):
    """Write the sums of `_quad_products` for a single sample, in the same order, so that they are equal."""
    single = uptr(1)
    pair = uptr(2)
    triple = uptr(3)
    for n in range(width):
        x[start + n] = 0
    for m in range(uptr(0), n_rows, QUAD):
        a = row + m
        a0 = charge[a]
        a1 = charge[a + single]
        a2 = charge[a + pair]
        a3 = charge[a + triple]
        j = base + m * width
        for n in range(width):
            k = j + n
            v0 = columns[k]
            v1 = columns[k + width]
            v2 = columns[k + pair * width]
            v3 = columns[k + triple * width]
            x[start + n] += (a0 * v0 + a1 * v1) + (a2 * v2 + a3 * v3)


@compiled
def _circuit_of(source, first_input, per_circuit):
    """Return the circuit of a source; 0 without saturation."""
    return (source + first_input) // per_circuit if per_circuit > 0 else 0


@compiled
def _end_of_circuit(source, first_input, per_circuit, sources):
    """Return the end of the sources that share a circuit with `source`."""
    if per_circuit == 0:
        return sources
    return min((source + first_input) // per_circuit * per_circuit + per_circuit - first_input, sources)


@compiled
def _feedback_rows(synapses, width):
    """Return the recurrent weights as rows for sums over all synaptic inputs that a spike can reach, flat.

    The neurons whose recurrent synapses are in one circuit follow each other. For each such group there is a block of
    rows, with the group's neurons as padded columns: without saturation a row for each neuron, with saturation a row
    for excitation and for inhibition.
    """
    weight = synapses.feedback
    neurons = weight.shape[0]
    parts = uptr(1) if synapses.per_circuit == 0 else uptr(2)
    zero = weight.dtype.type(0)
    size = uptr(0)
    n = 0
    while n < neurons:
        end = _end_of_circuit(n, synapses.first_recurrent, synapses.per_circuit, neurons)
        size += parts * width * padded(end - n)
        n = end
    rows = np.zeros(size, weight.dtype)
    base = uptr(0)
    n = 0
    while n < neurons:
        end = _end_of_circuit(n, synapses.first_recurrent, synapses.per_circuit, neurons)
        columns = padded(end - n)
        for m in range(neurons):
            for i in range(n, end):
                value = weight[m, i]
                k = base + uptr(m) * columns + uptr(i - n)
                if parts == 1:
                    rows[k] = value
                else:
                    rows[k] = max(value, zero)
                    rows[k + width * columns] = min(value, zero)
        base += parts * width * columns
        n = end
    return rows


@compiled
def _feed_back(x, stride, charge, wide, rows, synapses, samples, width):
    """Write the gradient of the spikes of a step through the recurrent synapses, `x[s stride + n]`.

    The padding of a group is overwritten by the next group.
    """
    neurons = synapses.feedback.shape[0]
    per_circuit = synapses.per_circuit
    n_rows = width if per_circuit == 0 else uptr(2) * width
    base = uptr(0)
    n = 0
    while n < neurons:
        end = _end_of_circuit(n, synapses.first_recurrent, per_circuit, neurons)
        columns = padded(end - n)
        row = uptr(2 * _circuit_of(n, synapses.first_recurrent, per_circuit)) * width
        if samples == QUAD:
            _quad_products(x, uptr(n), stride, charge, row, wide, rows, base, n_rows, columns)
        else:
            for s in range(samples):
                _products(x, s * stride + uptr(n), charge, s * wide + row, rows, base, n_rows, columns)
        base += n_rows * columns
        n = end


@compiled
def _is_silent(charge):
    """Return whether all charges are zero, as they are after the last step that the loss depends on."""
    nonzero = 0
    for n in range(uptr(charge.shape[0])):
        nonzero |= charge[n] != 0
    return nonzero == 0


@compiled
def _back_to_membranes(membrane, x, slopes, feedback, start, row, source, beta, width):
    """Carry the gradients of a sample's membranes one step back.

    Args:
        membrane: Gradients of the membranes; those of the sample begin at `start`.
        x: Direct gradients of the membranes; those of the step begin at `row`.
        slopes: Surrogate derivatives; those of the step begin at `row`.
        feedback: Gradients of the spikes through the recurrent synapses; those of the sample begin at `source`.
        start: Start of the sample in `membrane`.
        row: Start of the sample's step in `x` and `slopes`.
        source: Start of the sample in `feedback`.
        beta: Decay of the membrane per step.
        width: Number of neurons, padded.
    """
    for n in range(width):
        gradient = beta * membrane[start + n] + x[row + n] + slopes[row + n] * feedback[source + n]
        membrane[start + n] = gradient


@compiled
def _back_to_charges(membrane, charge, gates, start, gate, s, alpha, inputs, width):
    """Carry the gradients of a sample's charges one step back.

    Args:
        membrane: Gradients of the membranes through their free shares; those of the sample begin at `start`.
        charge: Gradients of the charges `[S, G, W]` of the step; of the previous step (out).
        gates: Slopes of the saturation; those of the step begin at `gate`; unused for one input.
        start: Start of the sample in `membrane`.
        gate: Start of the sample's step in `gates`.
        s: Sample.
        alpha: Decay of the synaptic current per step.
        inputs: Number G of synaptic inputs.
        width: Number of neurons, padded.
    """
    if inputs == 1:
        for n in range(width):
            charge[start + n] = alpha * charge[start + n] + membrane[start + n]
    else:
        for g in range(uptr(inputs)):
            target = (s * uptr(inputs) + g) * width
            source = gate + g * width
            for n in range(width):
                charge[target + n] = alpha * charge[target + n] + gates[source + n] * membrane[start + n]


@compiled
def _currents(current, checkpoints, steps, events, spikes, synapses, group, weight_rows, feedback_rows, alpha, width):
    """Write the synaptic currents of a sample at the start of each chunk of steps, `[C, G W]`."""
    wide = uptr(current.shape[0])
    current[:] = 0
    for t in range(steps):
        if t % CHUNK == 0:
            start = uptr(t // CHUNK) * wide
            for n in range(wide):
                checkpoints[start + n] = current[n]
        _next_current(current, events, spikes, synapses, group + t, weight_rows, feedback_rows, alpha, width)


@compiled
def _next_current(current, events, spikes, synapses, group, weight_rows, feedback_rows, alpha, width):
    """Carry the synaptic currents of a sample one step on."""
    per_circuit = synapses.per_circuit
    decay(current, alpha)
    arrive(current, weight_rows, events.offsets, events.units, group, synapses.first_input, per_circuit, width)
    arrive(current, feedback_rows, spikes.offsets, spikes.units, group, synapses.first_recurrent, per_circuit, width)


@compiled
def charges_of_samples(
    begin: int,
    end: int,
    layer: MeasuredPass,
    events: Groups,
    spikes: Groups,
    synapses: RecurrentSynapses,
    charges: Float,
) -> None:
    """Carry the gradient of samples `begin` to `end` back through a recurrent layer.

    Args:
        begin: First sample.
        end: End of the samples.
        layer: Measured layer.
        events: Input events; used with a saturation.
        spikes: Measured spikes; used with a saturation.
        synapses: Synapses of the layer.
        charges: Gradient of the charge that arrives at each synaptic input in each step, `[T, B, G N]` (out).
    """
    steps, batch, neurons = layer.shape
    alpha = layer.alpha
    beta = layer.beta
    inputs = synapses.inputs
    is_saturating = synapses.per_circuit > 0
    dtype = layer.membranes.traces.dtype
    width = padded(neurons)
    wide = uptr(inputs) * width
    stride = width + uptr(32)  # room for the padding of the last group
    columns = cut(layer.grads.weight, 0, neurons, width)
    rows = _feedback_rows(synapses, width)
    weight_rows = columns_of(synapses.weight, 0, neurons if is_saturating else 0, width)
    current_rows = columns_of(synapses.feedback_current, 0, neurons if is_saturating else 0, width)
    inverse = dtype.type(1) / synapses.limit
    chunks = (steps + CHUNK - 1) // CHUNK
    size = uptr(CHUNK) * width
    x = np.zeros(QUAD * size, dtype)
    slopes = np.zeros(QUAD * size, dtype)
    feedback = np.zeros(QUAD * stride, dtype)
    membrane = np.zeros(QUAD * width, dtype)
    is_held = layer.hold.time >= 0
    free = np.zeros(QUAD * size if is_held else uptr(0), dtype)
    carried = np.zeros(QUAD * size if is_held else uptr(0), dtype)
    through = np.zeros(QUAD * width, dtype) if is_held else membrane
    charge = np.zeros(QUAD * wide, dtype)
    of_saturation = uptr(1) if is_saturating else uptr(0)
    gates = np.ones(of_saturation * QUAD * uptr(CHUNK) * wide, dtype)
    checkpoints = np.zeros(of_saturation * QUAD * uptr(chunks) * wide, dtype)
    current = np.zeros(of_saturation * wide, dtype)
    flat_charges = charges.reshape(-1)
    for first in range(begin, end, QUAD):
        samples = min(uptr(end - first), QUAD)
        membrane[:] = 0
        charge[:] = 0
        feedback[:] = 0
        if is_saturating:
            for s in range(samples):
                saved = checkpoints[s * uptr(chunks) * wide : (s + uptr(1)) * uptr(chunks) * wide]
                group = (first + s) * steps
                _currents(
                    current, saved, steps, events, spikes, synapses, group, weight_rows, current_rows, alpha, width
                )
        for chunk in range(chunks - 1, -1, -1):
            step = chunk * CHUNK
            count = uptr(min(steps - step, CHUNK))
            for s in range(samples):
                part = slice(s * size, s * size + count * width)
                direct(x[part], slopes[part], first + s, step, 0, uptr(neurons), width, layer, columns, True)
                if is_held:
                    group = (first + s) * steps
                    free_shares(free[part], carried[part], layer.hold, group, steps, step, 0, uptr(neurons), width)
                if is_saturating:
                    saved = (s * uptr(chunks) + uptr(chunk)) * wide
                    current[:] = checkpoints[saved : saved + wide]
                    for t in range(count):
                        saturation_slopes(gates, (s * uptr(CHUNK) + t) * wide, current, inverse)
                        group = (first + s) * steps + step + t
                        _next_current(current, events, spikes, synapses, group, weight_rows, current_rows, alpha, width)
            for t in range(count - 1, -1, -1):
                for s in range(samples):
                    for g in range(uptr(inputs)):
                        target = ((uptr(step + t) * uptr(batch) + uptr(first) + s) * uptr(inputs) + g) * uptr(neurons)
                        source = (s * uptr(inputs) + g) * width
                        for n in range(uptr(neurons)):
                            flat_charges[target + n] = charge[source + n]
                if _is_silent(charge):
                    feedback[:] = 0
                else:
                    _feed_back(feedback, stride, charge, wide, rows, synapses, samples, width)
                for s in range(samples):
                    row = s * size + uptr(t) * width
                    gate = (s * uptr(CHUNK) + uptr(t)) * wide
                    start = s * width
                    _back_to_membranes(membrane, x, slopes, feedback, start, row, s * stride, beta, width)
                    if is_held:
                        hold_back(through, membrane, free, carried, start, row, width)
                    _back_to_charges(through, charge, gates, start, gate, s, alpha, inputs, width)


@compiled
def weights_of_neurons(
    first: int, last: int, charges: Float, events: Groups, spikes: Groups, synapses: RecurrentSynapses,
    results: RecurrentResults,
) -> None:  # fmt: skip
    """Sum the gradients of the weights of neurons `first` to `last` over the events.

    Args:
        first: First neuron.
        last: End of the neurons.
        charges: Gradient of the charges at each synaptic input in each step, `[T, B, G N]`.
        events: Input events; used with the gradient of their weights.
        spikes: Measured spikes; used with the gradient of the recurrent weights.
        synapses: Synapses of the layer.
        results: Gradients of the weights (out).
    """
    steps, batch, _ = charges.shape
    grad_weight, grad_feedback = results
    inputs = uptr(synapses.inputs)
    per_circuit = synapses.per_circuit
    neurons = uptr(charges.shape[2]) // inputs
    n_neurons = uptr(last - first)
    width = padded(last - first)
    wide = inputs * width
    has_weight = grad_weight.shape[0] > 0
    has_feedback = grad_feedback.shape[0] > 0
    is_saturating = per_circuit > 0
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, charges.dtype)
    feedback_rows = np.zeros(uptr(grad_feedback.shape[1]) * width, charges.dtype)
    signs = columns_of(synapses.weight, first, last if is_saturating else first, width)
    feedback_signs = columns_of(synapses.feedback, first, last if is_saturating else first, width)
    charge = np.zeros(uptr(steps) * wide, charges.dtype)
    flat_charges = charges.reshape(-1)
    for b in range(batch):
        for t in range(uptr(steps)):
            for g in range(inputs):
                source = ((t * uptr(batch) + uptr(b)) * inputs + g) * neurons + uptr(first)
                target = t * wide + g * width
                for n in range(n_neurons):
                    charge[target + n] = flat_charges[source + n]
        row = b * steps
        if is_saturating:
            if has_weight:
                add_charges(
                    rows, signs, charge, events.offsets, events.units, row, steps, synapses.first_input, per_circuit,
                    wide, width,
                )  # fmt: skip
            if has_feedback:
                add_charges(
                    feedback_rows, feedback_signs, charge, spikes.offsets, spikes.units, row, steps,
                    synapses.first_recurrent, per_circuit, wide, width,
                )  # fmt: skip
        else:
            if has_weight:
                add_to_rows(rows, charge, steps, events.offsets, events.units, row, width)
            if has_feedback:
                add_to_rows(feedback_rows, charge, steps, spikes.offsets, spikes.units, row, width)
    if has_weight:
        write_rows(grad_weight, first, last, rows, width)
    if has_feedback:
        write_rows(grad_feedback, first, last, feedback_rows, width)
