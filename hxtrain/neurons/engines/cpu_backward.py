"""Loops of a layer's backward pass, compiled for the CPU with numba (decision 0008).

The conventions of `cpu_forward.py` hold. `readable.py` and `saturation.py` say the same in torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.conversion_kernel import to_membrane
from hxtrain.neurons.jit import Float, Number, compiled, uptr

from .cpu_forward import BLOCK, Groups, padded
from .cpu_held import Hold, free_shares
from .surrogates import ARCTAN, GAUSSIAN, SIGMOID, SUPERSPIKE, TRIANGLE


class RecordedMembranes(NamedTuple):
    """Measured membranes as numbers or as codes.

    Attributes:
        traces: Membranes `[T, B, N]`; empty if there are codes.
        codes: Codes of the membranes, uint8, flat; if they are not empty, they replace `traces`.
        strides: Distances of trials and of trace samples in `codes`.
        scale: Membrane per code.
    """

    traces: Float
    codes: npt.NDArray[np.uint8]
    strides: tuple[int, int]
    scale: np.float32


class OutputGradients(NamedTuple):
    """Gradients of the loss with respect to a layer's outputs; empty arrays for none.

    Attributes:
        spikes: Gradient of the spikes, `[T, B, N]`.
        counts: Gradient of the numbers of spikes, `[B, N]`.
        traces: Gradient of the membranes, `[T, B, N]`.
        downstream: Gradient of the charges of the downstream layer, `[T, B, M]`.
        weight: Weights of the downstream layer, `[M, N]`.
    """

    spikes: Float
    counts: Float
    traces: Float
    downstream: Float
    weight: Float


class MeasuredPass(NamedTuple):
    """A measured layer, its model, and the gradients of its outputs.

    Attributes:
        shape: T, B, N.
        spikes: Measured spikes, at which the membrane is taken to be at its threshold; without offsets to leave the
            membranes as they are.
        membranes: Measured membranes.
        grads: Gradients of the outputs.
        surrogate: Number of the surrogate, see `surrogates.py`.
        slope: Slope of the surrogate.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        hold: Hold of the membranes after a spike.
    """

    shape: tuple[int, int, int]
    spikes: Groups
    membranes: RecordedMembranes
    grads: OutputGradients
    surrogate: int
    slope: Number
    alpha: Number
    beta: Number
    hold: Hold


class Results(NamedTuple):
    """Where the gradients of a layer are written.

    Attributes:
        charges: Gradient of the charge that arrives in each step, `[T, B, N]`, or at each synaptic input,
            `[T, B, G N]`; empty if it is not requested.
        weight: Gradient of the weights, `[N, J]`; empty if it is not requested.
    """

    charges: Float
    weight: Float


@compiled
def _products(x, start, charge, row, columns, n_downstream, width):
    """Write to `x[start + n]` the sum over the downstream neurons m of `charge[row + m] columns[m, n]`.

    Rows are added in pairs, and four pairs share a loop: the compiler can check the distances of that many rows before
    the loop.
    """
    for n in range(width):
        x[start + n] = 0
    m = uptr(0)
    single = uptr(1)
    pair = uptr(2)
    quad = uptr(4)
    octet = uptr(8)
    while m + octet <= n_downstream:
        i = row + m
        j = m * width
        c0 = charge[i]
        c1 = charge[i + single]
        c2 = charge[i + pair]
        c3 = charge[i + pair + single]
        c4 = charge[i + quad]
        c5 = charge[i + quad + single]
        c6 = charge[i + quad + pair]
        c7 = charge[i + octet - single]
        for n in range(width):
            k = j + n
            y = x[start + n] + (c0 * columns[k] + c1 * columns[k + width])
            y += c2 * columns[k + pair * width] + c3 * columns[k + (pair + single) * width]
            y += c4 * columns[k + quad * width] + c5 * columns[k + (quad + single) * width]
            x[start + n] = y + (c6 * columns[k + (quad + pair) * width] + c7 * columns[k + (octet - single) * width])
        m += octet
    while m + pair <= n_downstream:
        c0 = charge[row + m]
        c1 = charge[row + m + single]
        j = m * width
        for n in range(width):
            x[start + n] += c0 * columns[j + n] + c1 * columns[j + width + n]
        m += pair
    if m < n_downstream:
        c0 = charge[row + m]
        j = m * width
        for n in range(width):
            x[start + n] += c0 * columns[j + n]


@compiled
def _from_downstream(x, steps, charge, start, stride, columns, n_downstream, width):
    """Write to `x [T, W]` the gradient of the spikes through the downstream layer.

    The charges of the downstream layer in step t begin at `start + t stride`.
    Late charges are often zero: nothing depends on a readout after its maximum.
    """
    for t in range(uptr(steps)):
        row = start + t * stride
        silent = True
        for m in range(n_downstream):
            if charge[row + m] != 0:
                silent = False
        if silent:
            x[t * width : (t + uptr(1)) * width] = 0
        else:
            _products(x, t * width, charge, row, columns, n_downstream, width)


@compiled
def _add_rows(x, steps, rows, start, stride, n_neurons, width):
    """Add to `x [T, W]` the rows at `start + t stride`."""
    for t in range(uptr(steps)):
        for n in range(n_neurons):
            x[t * width + n] += rows[start + t * stride + n]


@compiled
def _distances(distance, steps, traces, start, stride, n_neurons, width):
    """Write the distances of the membranes from the threshold `[T, W]`."""
    threshold = distance.dtype.type(1)
    for t in range(uptr(steps)):
        for n in range(n_neurons):
            distance[t * width + n] = traces[start + t * stride + n] - threshold


@compiled
def _distances_of_codes(distance, steps, codes, leak, start, stride, scale, n_neurons, width):
    """Write the distances of membranes given as codes at `start + t stride`; the codes of the leak are at `leak`.

    There are two loops, since the rounding of the membrane is a part of the result.
    """
    threshold = distance.dtype.type(1)
    rest = np.empty(n_neurons, distance.dtype)
    for n in range(n_neurons):
        rest[n] = codes[leak + n]
    for t in range(uptr(steps)):
        to_membrane(codes[start + t * stride :], rest, scale, distance, t * width)
    for n in range(uptr(distance.shape[0])):
        distance[n] -= threshold


@compiled
def _at_threshold(distance, steps, spike_offsets, spike_units, row, first, n_neurons, width):
    """Set the distance to zero where a spike says that the membrane was at the threshold."""
    for t in range(uptr(steps)):
        for e in range(spike_offsets[row + t], spike_offsets[row + t + 1]):
            n = uptr(spike_units[e] - first)  # very large for neurons below the first
            if n < n_neurons:
                distance[t * width + n] = 0


@compiled
def _surrogate(number, distance, slope):
    """Turn distances from the threshold into surrogate derivatives (`surrogate.py`); the last one is the boxcar."""
    kind = distance.dtype.type
    unity = kind(1)
    zero = kind(0)
    four = kind(4)
    half = kind(0.5)
    if number == SUPERSPIKE:
        for n in range(uptr(distance.shape[0])):
            y = unity + slope * abs(distance[n])
            distance[n] = unity / (y * y)
        return
    for n in range(uptr(distance.shape[0])):
        y = slope * distance[n]
        if number == TRIANGLE:
            distance[n] = max(unity - abs(y), zero)
        elif number == SIGMOID:
            s = unity / (unity + np.exp(-y))
            distance[n] = four * s * (unity - s)
        elif number == GAUSSIAN:
            distance[n] = np.exp(-half * y * y)
        elif number == ARCTAN:
            distance[n] = unity / (unity + y * y)
        else:
            distance[n] = unity if abs(y) < unity else zero


@compiled
def _multiply(x, factor):
    for n in range(uptr(x.shape[0])):
        x[n] *= factor[n]


@compiled
def _back(x, membrane, charge, start, previous, alpha, beta):
    """Carry the gradients of the membranes and of the charges one step back.

    The rows of the current and of the previous step begin at `start` and `previous`.
    """
    for n in range(uptr(membrane.shape[0])):
        m = beta * membrane[n] + x[start + n]
        membrane[n] = m
        charge[previous + n] = alpha * charge[start + n] + m


@compiled
def _back_through_held(x, membrane, charge, free, carried, start, previous, alpha, beta):
    """Carry gradients one step back as `_back`, through membranes that may be held; see `free_shares`."""
    for n in range(uptr(membrane.shape[0])):
        m = beta * membrane[n] + x[start + n]
        membrane[n] = carried[start + n] * m
        charge[previous + n] = alpha * charge[start + n] + free[start + n] * m


@compiled
def add_to_rows(rows, charge, steps, offsets, units, row, width):
    """Add the charges of each step to the rows of its events."""
    for t in range(uptr(steps - 1)):
        for e in range(offsets[row + t], offsets[row + t + 1]):
            target = uptr(units[e]) * width
            source = t * width
            for n in range(width):
                rows[target + n] += charge[source + n]


@compiled
def cut(weight, first, last, width):
    """Return the columns `first` to `last` of weights as padded rows, flat."""
    columns = np.zeros(uptr(weight.shape[0]) * width, weight.dtype)
    n_neurons = uptr(last - first)
    for m in range(weight.shape[0]):
        columns[uptr(m) * width : uptr(m) * width + n_neurons] = weight[m, first:last]
    return columns


@compiled
def write_rows(weight, first, last, columns, width):
    """Write padded columns as rows `first` to `last` of weights `[N, J]`: the inverse of `cpu_forward.columns_of`."""
    rows = weight.reshape(-1)
    inputs = uptr(weight.shape[1])
    for block in range(uptr(0), inputs, BLOCK):
        end = min(block + BLOCK, inputs)
        for n in range(uptr(last - first)):
            for j in range(block, end):
                rows[(uptr(first) + n) * inputs + j] = columns[j * width + n]


@compiled
def direct(x, distance, b, step, first, n_neurons, width, layer, columns, has_slopes):
    """Write the gradient of a sample's membranes `x [S, W]` without that of later steps: the gradient of the loss, and
    the gradient through the downstream layer.

    Args:
        x: Gradient of the membranes of as many steps S as it has rows (out).
        distance: Surrogate derivatives, of the same size (out, if a gradient of spikes or `has_slopes` needs them).
        b: Sample.
        step: First of the steps.
        first: First neuron.
        n_neurons: Number of neurons.
        width: Number of neurons W, padded.
        layer: Measured layer.
        columns: Weights of the downstream layer as padded rows, flat.
        has_slopes: Whether surrogate derivatives are written in any case.
    """
    steps, batch, neurons = layer.shape
    grads = layer.grads
    codes = layer.membranes.codes
    count = uptr(x.shape[0]) // width
    stride = uptr(batch * neurons)
    start = uptr(b * neurons + first) + uptr(step) * stride
    n_downstream = uptr(grads.downstream.shape[2])
    has_downstream = grads.downstream.shape[0] > 0
    if has_downstream:
        row_stride = uptr(batch) * n_downstream
        row = uptr(b) * n_downstream + uptr(step) * row_stride
        _from_downstream(x, count, grads.downstream.reshape(-1), row, row_stride, columns, n_downstream, width)
    else:
        x[:] = 0
    if grads.spikes.shape[0] > 0:
        _add_rows(x, count, grads.spikes.reshape(-1), start, stride, n_neurons, width)
    if grads.counts.shape[0] > 0:
        _add_rows(x, count, grads.counts.reshape(-1), uptr(b * neurons + first), uptr(0), n_neurons, width)
    if has_slopes or has_downstream or grads.spikes.shape[0] > 0 or grads.counts.shape[0] > 0:
        if codes.shape[0] > 0:
            of_trial, of_sample = layer.membranes.strides
            leak = uptr(b * of_trial + first)
            codes_start = leak + uptr(step) * uptr(of_sample)
            scale = layer.membranes.scale
            _distances_of_codes(distance, count, codes, leak, codes_start, uptr(of_sample), scale, n_neurons, width)
        else:
            _distances(distance, count, layer.membranes.traces.reshape(-1), start, stride, n_neurons, width)
        offsets, units = layer.spikes
        if offsets.shape[0] > 0:
            _at_threshold(distance, count, offsets, units, b * steps + step, first, n_neurons, width)
        _surrogate(layer.surrogate, distance, layer.slope)
        _multiply(x, distance)
    if grads.traces.shape[0] > 0:
        _add_rows(x, count, grads.traces.reshape(-1), start, stride, n_neurons, width)


@compiled
def gradient(first: int, last: int, layer: MeasuredPass, events: Groups, results: Results) -> None:
    """Carry the gradient of neurons `first` to `last` back through a layer without recurrence, for all samples.

    Args:
        first: First neuron.
        last: End of the neurons.
        layer: Measured layer.
        events: Input events; used with the gradient of the weights.
        results: Gradients of charges and weights (out).
    """
    steps, batch, neurons = layer.shape
    alpha = layer.alpha
    beta = layer.beta
    offsets, units = events
    charges, grad_weight = results
    dtype = layer.membranes.traces.dtype
    n_neurons = uptr(last - first)
    width = padded(last - first)
    flat_charges = charges.reshape(-1)
    size = uptr(steps) * width
    charge = np.zeros(size, dtype)
    distance = np.zeros(size, dtype)
    x = np.zeros(size, dtype)
    membrane = np.zeros(width, dtype)
    is_held = layer.hold.time >= 0
    free = np.zeros(size if is_held else uptr(0), dtype)
    carried = np.zeros(size if is_held else uptr(0), dtype)
    columns = cut(layer.grads.weight, first, last, width)
    rows = np.zeros(uptr(grad_weight.shape[1]) * width, dtype)
    for b in range(batch):
        direct(x, distance, b, 0, first, n_neurons, width, layer, columns, False)
        membrane[:] = 0
        if is_held:
            free_shares(free, carried, layer.hold, b * steps, steps, 0, first, n_neurons, width)
            for t in range(uptr(steps - 1), uptr(0), -1):
                start = uptr(t) * width
                _back_through_held(x, membrane, charge, free, carried, start, start - width, alpha, beta)
        else:
            for t in range(uptr(steps - 1), uptr(0), -1):
                _back(x, membrane, charge, uptr(t) * width, uptr(t - 1) * width, alpha, beta)
        if charges.shape[0] > 0:
            for t in range(steps):
                target = uptr((t * batch + b) * neurons + first)
                source = uptr(t) * width
                for n in range(n_neurons):
                    flat_charges[target + n] = charge[source + n]
        if grad_weight.shape[0] > 0:
            add_to_rows(rows, charge, steps, offsets, units, b * steps, width)
    if grad_weight.shape[0] > 0:
        write_rows(grad_weight, first, last, rows, width)
