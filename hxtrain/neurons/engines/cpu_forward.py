"""Loops of a layer's forward pass, compiled for the CPU with numba (decision 0008).

Each call computes its part of the neurons or of the batch from the first step to the last, so that the state of this
part stays in the first-level cache. The innermost loops run over neurons and become vector instructions. `readable.py`
says the same in torch; `cpu_backward.py` has the loops of the backward pass.

A loop over neurons is a function of its own on whole, flat arrays and an unsigned start: slices would cost more than
the loop itself, and a signed start might count from the end. In these functions `n_neurons` is the number of neurons of
the part, and `width` is the same padded to whole vectors.

Shape letters: `T` steps, `B` samples, `J` inputs, `N` neurons, `E` events. Events are grouped by sample and step:
those of sample b in step t are `units[offsets[b * T + t]:offsets[b * T + t + 1]]`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, Number, compiled, exact, uptr

BLOCK = uptr(16)
"""Rows of weights that are turned into columns together: as many numbers as a cache line holds."""


class Groups(NamedTuple):
    """Events grouped by sample and step.

    Attributes:
        offsets: Start of each group, int64 `[B T + 1]`; empty for no events.
        units: Source of each event, int64 `[E]`.
    """

    offsets: Int
    units: Int


class Drive(NamedTuple):
    """The synapses of a layer and what arrives at them: events, or the summed weights of each step.

    Attributes:
        shape: T, B, N.
        events: Input events; without any if the inputs are given as `charge`.
        weight: Weights `[N, J]` of input events; empty if the inputs are given as `charge`.
        charge: Summed weights of the inputs of each step, `[T, B, N]`; unused with input events.
        recurrent: Recurrent weights `[N, N]`; empty without recurrence.
        alpha: Decay of the synaptic current per step.
        beta: Decay of the membrane per step.
        hold: Time for which a membrane is held at the leak after a spike (steps). If it is negative, the threshold is
            subtracted, and nothing is held.
    """

    shape: tuple[int, int, int]
    events: Groups
    weight: Float
    charge: Float
    recurrent: Float
    alpha: Number
    beta: Number
    hold: Number


class Part(NamedTuple):
    """The part of a layer that a call computes.

    Attributes:
        begin: First sample.
        end: End of the samples.
        first: First neuron; 0 with recurrent weights, since all neurons then run together.
        last: End of the neurons; N with recurrent weights.
    """

    begin: int
    end: int
    first: int
    last: int


class SpikeBuffer(NamedTuple):
    """The spikes of a part of a layer.

    Attributes:
        counts: Number of spikes of these neurons in each step, `[B, T]`; empty if neurons do not spike.
        neurons: Neurons that spiked, in order.
    """

    counts: Int
    neurons: npt.NDArray[np.int32]


@exact
def join_buffers(counts: Int, buffers: npt.NDArray[np.int32], offsets: Int, units: Int) -> None:
    """Join the spikes that `respond` wrote to one buffer for each part of the neurons or samples.

    Args:
        counts: Number of spikes of each part in each step, `[P, B, T]`.
        buffers: Neurons of each part that spiked, in order, `[P, ...]`.
        offsets: Start of each group, int64 `[B T + 1]` (out).
        units: Neurons of the grouped spikes, int64 `[E]` (out).
    """
    parts, samples, steps = counts.shape
    n_read = np.zeros(parts, np.int64)
    total = 0
    for b in range(samples):
        for t in range(steps):
            offsets[b * steps + t] = total
            for p in range(parts):
                for i in range(n_read[p], n_read[p] + counts[p, b, t]):
                    units[total] = buffers[p, i]
                    total += 1
                n_read[p] += counts[p, b, t]
    offsets[-1] = total


@compiled
def padded(count):
    """Return the width of rows that hold `count` neurons and are whole vectors: the remainder of a loop is slow."""
    return uptr((count + 31) // 32 * 32)


@compiled
def add_row(x, rows, start, n_neurons):
    for n in range(n_neurons):
        x[n] += rows[start + n]


@compiled
def columns_of(weight, first, last, width):
    """Return rows `first` to `last` of weights `[N, J]` as the columns of `[J, width]`, flat, padded with zeros."""
    columns = np.zeros(uptr(weight.shape[1]) * width, weight.dtype)
    rows = weight.reshape(-1)
    inputs = uptr(weight.shape[1])
    n_neurons = uptr(last - first)
    for block in range(uptr(0), n_neurons, BLOCK):
        end = min(block + BLOCK, n_neurons)
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
        start = uptr(units[e]) * width
        for n in range(width):
            current[n] += rows[start + n]


@compiled
def _record(membrane, traces, start, n_neurons):
    """Record the membranes; return how many are above the threshold."""
    count = 0
    for n in range(n_neurons):
        traces[start + n] = membrane[n]
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _count_above(membrane, n_neurons):
    """Return how many membranes are above the threshold."""
    count = 0
    for n in range(n_neurons):
        count += 1 if membrane[n] > membrane.dtype.type(1) else 0
    return count


@compiled
def _collect(membrane, first, n_neurons, buffer, position):
    """Write the neurons above the threshold into a buffer from `position` on; the first neuron has number `first`."""
    for n in range(n_neurons):
        if membrane[n] > membrane.dtype.type(1):
            buffer[position] = first + n
            position += 1


@compiled
def _advance(membrane, current, beta, spiking):
    """Advance the membranes by a step; if neurons spike, membranes above the threshold are reset."""
    threshold = membrane.dtype.type(1)
    zero = membrane.dtype.type(0)
    if spiking:
        for n in range(uptr(membrane.shape[0])):
            reset = threshold if membrane[n] > threshold else zero
            membrane[n] = beta * membrane[n] + current[n] - reset
    else:
        for n in range(uptr(membrane.shape[0])):
            membrane[n] = beta * membrane[n] + current[n]


@compiled
def _advance_and_reset(membrane, current, reset, beta):
    for n in range(uptr(membrane.shape[0])):
        membrane[n] = beta * membrane[n] + current[n] - reset[n]


@compiled
def _mark_above(membrane, fired):
    """Mark the membranes above the threshold by 1, all others by 0."""
    for n in range(uptr(membrane.shape[0])):
        fired[n] = membrane.dtype.type(1) if membrane[n] > membrane.dtype.type(1) else membrane.dtype.type(0)


@compiled
def _advance_and_hold(membrane, current, fired, rest, beta, hold):
    """Advance the membranes by a step; those of neurons that fired are held at the leak for `hold` steps.

    `rest` is the rest of the hold of each neuron (steps).
    """
    zero = membrane.dtype.type(0)
    unit = membrane.dtype.type(1)
    for n in range(uptr(membrane.shape[0])):
        remaining = hold if fired[n] > zero else rest[n]
        carried = zero if remaining > zero or fired[n] > zero else beta * membrane[n]
        membrane[n] = carried + (unit - min(remaining, unit)) * current[n]
        rest[n] = max(remaining - unit, zero)


@compiled
def respond(part: Part, drive: Drive, spiking: bool, traces: Float, spikes: SpikeBuffer) -> None:
    """Run a part of the samples and neurons of a layer of the twin.

    Args:
        part: Samples and neurons.
        drive: Synapses and their inputs.
        spiking: Whether neurons spike.
        traces: Membranes `[T, B, N]` (out); empty if they are not recorded.
        spikes: Spikes of these neurons (out).
    """
    begin, end, first, last = part
    steps, batch, neurons = drive.shape
    offsets, units = drive.events
    alpha = drive.alpha
    beta = drive.beta
    counts, buffer = spikes
    n_neurons = uptr(last - first)
    width = padded(last - first)
    has_events = drive.weight.shape[0] > 0
    is_recurrent = drive.recurrent.shape[0] > 0
    rows = columns_of(drive.weight, first, last if has_events else first, width)
    recurrent_rows = columns_of(drive.recurrent, first, last if is_recurrent else first, width)
    flat_charge = drive.charge.reshape(-1)
    flat_traces = traces.reshape(-1)
    is_held = spiking and drive.hold >= 0
    current = np.zeros(width, traces.dtype)
    membrane = np.zeros(width, traces.dtype)
    fired = np.zeros(width, traces.dtype)
    rest = np.zeros(width, traces.dtype)
    position = 0
    for b in range(begin, end):
        current[:] = 0
        membrane[:] = 0
        rest[:] = 0
        for t in range(steps):
            start = uptr((t * batch + b) * neurons + first)
            group = b * steps + t
            if flat_traces.shape[0] > 0:
                count = _record(membrane, flat_traces, start, n_neurons)
            else:
                count = _count_above(membrane, n_neurons)
            if has_events:
                _arrive(current, alpha, rows, units, offsets[group], offsets[group + 1])
            else:
                decay(current, alpha)
                add_row(current, flat_charge, start, n_neurons)
            if spiking:
                counts[b, t] = count
                if count > 0:
                    _collect(membrane, first, n_neurons, buffer, position)
                    if is_recurrent:
                        for i in range(position, position + count):
                            add_row(current, recurrent_rows, uptr(buffer[i]) * width, width)
                    position += count
            if is_held:
                _mark_above(membrane, fired)
                _advance_and_hold(membrane, current, fired, rest, beta, drive.hold)
            else:
                _advance(membrane, current, beta, spiking)


@compiled
def follow(begin: int, end: int, drive: Drive, spikes: Groups, traces: Float) -> None:
    """Run samples `begin` to `end` through a layer of the twin with prescribed spikes.

    Args:
        begin: First sample.
        end: End of the samples.
        drive: Synapses and their inputs.
        spikes: The layer's spikes, at most one per neuron and step.
        traces: Membranes `[T, B, N]` (out).
    """
    steps, batch, neurons = traces.shape
    offsets, units = drive.events
    alpha = drive.alpha
    beta = drive.beta
    spike_offsets, spike_units = spikes
    n_neurons = uptr(neurons)
    width = padded(neurons)
    threshold = traces.dtype.type(1)
    has_events = drive.weight.shape[0] > 0
    is_recurrent = drive.recurrent.shape[0] > 0
    rows = columns_of(drive.weight, 0, neurons if has_events else 0, width)
    recurrent_rows = columns_of(drive.recurrent, 0, neurons if is_recurrent else 0, width)
    flat_charge = drive.charge.reshape(-1)
    flat_traces = traces.reshape(-1)
    current = np.zeros(width, traces.dtype)
    membrane = np.zeros(width, traces.dtype)
    reset = np.zeros(width, traces.dtype)
    rest = np.zeros(width, traces.dtype)
    for b in range(begin, end):
        current[:] = 0
        membrane[:] = 0
        rest[:] = 0
        for t in range(steps):
            start = uptr((t * batch + b) * neurons)
            group = b * steps + t
            _record(membrane, flat_traces, start, n_neurons)
            if has_events:
                _arrive(current, alpha, rows, units, offsets[group], offsets[group + 1])
            else:
                decay(current, alpha)
                add_row(current, flat_charge, start, n_neurons)
            for e in range(spike_offsets[group], spike_offsets[group + 1]):
                reset[uptr(spike_units[e])] = threshold
                if is_recurrent:
                    add_row(current, recurrent_rows, uptr(spike_units[e]) * width, width)
            if drive.hold >= 0:
                _advance_and_hold(membrane, current, reset, rest, beta, drive.hold)
            else:
                _advance_and_reset(membrane, current, reset, beta)
            for e in range(spike_offsets[group], spike_offsets[group + 1]):
                reset[uptr(spike_units[e])] = 0
