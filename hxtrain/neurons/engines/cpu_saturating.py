"""Loops of the backward pass of a layer whose synaptic inputs saturate, compiled for the CPU with numba.

The conventions of `cpu_forward.py` hold. `saturation.py` says the same in torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hxtrain.neurons.jit import Float, Number, compiled, uptr

from .cpu_backward import MeasuredPass, Results, cut, direct, write_rows
from .cpu_forward import Groups, columns_of, decay, padded
from .cpu_held import free_shares, hold_back


class SaturatingSynapses(NamedTuple):
    """Synapses of a layer whose inputs saturate.

    Attributes:
        weight: Weights of the layer, `[N, J]`.
        limit: Synaptic current at which an input saturates.
        per_circuit: Number of signed inputs of a circuit.
        first_input: Signed input of source 0.
        inputs: Number G of synaptic inputs of a neuron, two for each of its circuits, excitation first.
    """

    weight: Float
    limit: Number
    per_circuit: int
    first_input: int
    inputs: int


@compiled
def _add_signs(current, exc, inh, weight, start, width):
    """Add weights to the currents of excitation and inhibition."""
    zero = current.dtype.type(0)
    for n in range(width):
        current[exc + n] += max(weight[start + n], zero)
    for n in range(width):
        current[inh + n] -= min(weight[start + n], zero)


@compiled
def arrive(current, weight, offsets, units, group, first_input, per_circuit, width):
    """Add the weights of the events of a group to the currents of the synaptic inputs that they belong to."""
    for e in range(offsets[group], offsets[group + 1]):
        exc = uptr((units[e] + first_input) // per_circuit * 2) * width
        _add_signs(current, exc, exc + width, weight, uptr(units[e]) * width, width)


@compiled
def saturation_slopes(slopes, start, current, inverse):
    """Write the slopes of the saturation, `1 - tanh(I / limit)^2`, for the currents I; `inverse` is `1 / limit`."""
    number = current.dtype.type
    unity = number(1)
    a = number(945)
    b = number(105)
    c = number(420)
    d = number(15)
    for n in range(uptr(current.shape[0])):
        x = current[n] * inverse
        y = x * x
        tanh = min(x * (a + y * (b + y)) / (a + y * (c + d * y)), unity)
        slopes[start + n] = unity - tanh * tanh


@compiled
def _back_to_membranes(x, membrane, row, beta):
    """Carry the gradients of the membranes one step back; the current step begins at `row` in `x`."""
    for n in range(uptr(membrane.shape[0])):
        membrane[n] = beta * membrane[n] + x[row + n]


@compiled
def _back_to_inputs(membrane, slopes, charge, start, previous, alpha, inputs):
    """Carry the gradients of the charges at all synaptic inputs one step back.

    The current step begins at `start` in `slopes` and `charge`; the previous step begins at `previous` in `charge`.
    """
    width = uptr(membrane.shape[0])
    for g in range(inputs):
        source = start + uptr(g) * width
        target = previous + uptr(g) * width
        for n in range(width):
            charge[target + n] = alpha * charge[source + n] + slopes[source + n] * membrane[n]


@compiled
def _add_by_sign(rows, start, weight, charge, exc, inh, width):
    """Add the gradient of the charges at the synaptic input that each weight belongs to."""
    zero = rows.dtype.type(0)
    for n in range(width):
        # both are read: otherwise the loop does not become vector instructions
        excitation = charge[exc + n]
        inhibition = charge[inh + n]
        rows[start + n] += excitation if weight[start + n] >= zero else inhibition


@compiled
def add_charges(rows, weight, charge, offsets, units, row, steps, first_input, per_circuit, wide, width):
    """Add the charges of each step to the rows of its events, those of the synaptic input that a weight belongs to.

    The events of step t are in group `row + t`, its charges begin at `t wide`.
    """
    for t in range(steps - 1):
        for e in range(offsets[row + t], offsets[row + t + 1]):
            exc = uptr(t) * wide + uptr((units[e] + first_input) // per_circuit * 2) * width
            _add_by_sign(rows, uptr(units[e]) * width, weight, charge, exc, exc + width, width)


@compiled
def saturating_gradient(
    first: int, last: int, layer: MeasuredPass, events: Groups, synapses: SaturatingSynapses, results: Results
) -> None:
    """Carry the gradient of neurons `first` to `last` back through a layer whose synaptic inputs saturate.

    Args:
        first: First neuron.
        last: End of the neurons.
        layer: Measured layer.
        events: Input events.
        synapses: Synapses of the layer.
        results: Gradients of the charges at each synaptic input and of the weights (out).
    """
    steps, batch, neurons = layer.shape
    alpha = layer.alpha
    beta = layer.beta
    offsets, units = events
    charges, grad_weight = results
    per_circuit = synapses.per_circuit
    first_input = synapses.first_input
    inputs = synapses.inputs
    dtype = layer.membranes.traces.dtype
    n_neurons = uptr(last - first)
    width = padded(last - first)
    flat_charges = charges.reshape(-1)
    wide = uptr(inputs) * width
    inverse = dtype.type(1) / synapses.limit
    charge = np.zeros(uptr(steps) * wide, dtype)
    slopes = np.ones(uptr(steps) * wide, dtype)
    membrane = np.zeros(width, dtype)
    is_held = layer.hold.time >= 0
    of_hold = uptr(steps) * width if is_held else uptr(0)
    free = np.zeros(of_hold, dtype)
    carried = np.zeros(of_hold, dtype)
    through = np.zeros(width, dtype) if is_held else membrane
    current = np.zeros(wide, dtype)
    distance = np.zeros(uptr(steps) * width, dtype)
    x = np.zeros(uptr(steps) * width, dtype)
    columns = cut(layer.grads.weight, first, last, width)
    synapse_rows = columns_of(synapses.weight, first, last, width)
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, dtype)
    for b in range(batch):
        current[:] = 0
        for t in range(steps - 1):
            decay(current, alpha)
            arrive(current, synapse_rows, offsets, units, b * steps + t, first_input, per_circuit, width)
            saturation_slopes(slopes, uptr(t + 1) * wide, current, inverse)
        direct(x, distance, b, 0, first, n_neurons, width, layer, columns, False)
        membrane[:] = 0
        if is_held:
            free_shares(free, carried, layer.hold, b * steps, steps, 0, first, n_neurons, width)
        for t in range(steps - 1, 0, -1):
            row = uptr(t) * width
            _back_to_membranes(x, membrane, row, beta)
            if is_held:
                hold_back(through, membrane, free, carried, uptr(0), row, width)
            _back_to_inputs(through, slopes, charge, uptr(t) * wide, uptr(t - 1) * wide, alpha, inputs)
        if charges.shape[0] > 0:
            for t in range(steps):
                for g in range(inputs):
                    target = uptr(((t * batch + b) * inputs + g) * neurons + first)
                    source = uptr(t) * wide + uptr(g) * width
                    for n in range(n_neurons):
                        flat_charges[target + n] = charge[source + n]
        add_charges(rows, synapse_rows, charge, offsets, units, b * steps, steps, first_input, per_circuit, wide, width)
    write_rows(grad_weight, first, last, rows, width)
