"""The engine for GPUs: the equations of `dynamics.py` in Triton.

A program simulates a trial from start to end, all neurons side by side, with their state in registers. Only events,
rows of charges, samples and spikes go through memory. `readable.py` says the same in torch, `cpu_kernel.py` for CPUs.

The state of neurons is `[WIDTH]`, the state of their merged circuits `[WIDTH, CIRCUITS]`, both padded to powers of two.
Lanes without a neuron have infinite thresholds. Times are in sub-steps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hxtrain.emulator.parameters import STREAM_CADC, STREAM_JITTER, STREAM_MEMBRANE

MEMBRANE, CADC, JITTER = (tl.constexpr(s << 28) for s in (STREAM_MEMBRANE, STREAM_CADC, STREAM_JITTER))
FIELDS = tl.constexpr(7)
"""Number of parameters of a neuron: reset, refractory, mem, noise, cadc_gain, cadc_offset, early."""
ROW_FIELDS = tl.constexpr(3)
"""Number of slow quantities of a neuron: rest, start, threshold."""
CIRCUIT_FIELDS = tl.constexpr(4)
"""Number of parameters of a merged circuit: decay and drive, each of excitation and inhibition."""
TRIAL_FIELDS = tl.constexpr(5)
"""Number of entries of a trial: chip, row, two noise keys, phase (float32)."""
BAD_EVENT, TOTAL, LARGEST = (tl.constexpr(i) for i in range(3))
"""Entries of the status of a run: flag of an event out of range, all spikes, largest number of spikes of a trial."""


@triton.jit
def _mix(x):
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _words(stream, step, n, key0, key1):
    """Return a random word of each neuron."""
    counter = stream | (step << 12) | n
    return _mix(_mix(counter.to(tl.uint32) ^ key0) + key1)


@triton.jit
def _normal(table, word):
    return tl.load(table + (word & 0xFFFF).to(tl.int32))


@triton.jit
def _pade_tanh(x):
    square = x * x
    return tl.minimum(x * (15.0 + square) / (15.0 + 6.0 * square), 1.0)


@triton.jit
def _compress(x, low, high):
    """Soft limit of the readout: the outer 10 LSB approach the rail."""
    top = high - 10.0
    bottom = low + 10.0
    excess, deficit = tl.maximum(x - top, 0.0), tl.maximum(bottom - x, 0.0)
    x = tl.minimum(tl.maximum(x, bottom), top)
    return x + 10.0 * (_pade_tanh(excess * 0.1) - _pade_tanh(deficit * 0.1))


@triton.jit
def _charges_of_source(charges, circuits, row, neurons, n, a, is_circuit):
    """Return the charges `[WIDTH, CIRCUITS]` that a source delivers to each merged circuit."""
    circuit = tl.load(circuits + row * neurons + n, mask=n < neurons, other=-1).to(tl.int32)
    charge = tl.load(charges + row * neurons + n, mask=n < neurons, other=0.0)
    return tl.where((circuit[:, None] == a[None, :]) & is_circuit, charge[:, None], 0.0)


@triton.jit
def sort_in(
    sample, unit, time, trials, place, event_times, status, events, batch, inputs, steps, substep, BLOCK: tl.constexpr
):
    """Compute trial and sub-step of events; events outside of their trial get the largest index.

    Args:
        sample: Sample of each event, int64 `[E]`, grouped.
        unit: Input of each event, int64 `[E]`.
        time: Time of each event (s), float32 `[E]`.
        trials: Entries of each trial, int32 `[B, TRIAL_FIELDS]`.
        place: Index of trial and sub-step of each event, int32 `[E]` (out).
        event_times: Time of each event in sub-steps, float32 `[E]` (out).
        status: Status of the run, int32 `[3]` (out).
        events: Number of events `E`.
        batch: Number of trials `B`.
        inputs: Number of external inputs.
        steps: Sub-steps of a trial.
        substep: Length of a sub-step (s).
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_event = index < events
    s, u = tl.load(sample + index, mask=is_event, other=0), tl.load(unit + index, mask=is_event, other=0)
    t = tl.load(time + index, mask=is_event, other=0.0)
    previous = tl.load(sample + index - 1, mask=is_event & (index > 0), other=0)
    is_valid = (s >= previous) & (s < batch) & (u >= 0) & (u < inputs) & (t >= 0)
    if tl.sum((is_event & ~is_valid).to(tl.int32), 0) > 0:
        tl.store(status + BAD_EVENT, 1)
    phase = tl.load(trials + s * TRIAL_FIELDS + 4, mask=is_event & is_valid, other=0).to(tl.float32, bitcast=True)
    x = (t + phase) / substep
    inside = is_valid & (x < steps)
    tl.store(
        place + index, tl.where(inside, s * steps + tl.where(inside, x, 0.0).to(tl.int32), batch * steps), mask=is_event
    )
    tl.store(event_times + index, x, mask=is_event)


@triton.jit
def collect(
    trials, counts, ends, spike_neurons, spike_times, sample, unit, time, capacity, substep, resolution,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Concatenate the spikes of all trials, with their stamps in seconds.

    Args:
        trials: Entries of each trial, int32 `[B, TRIAL_FIELDS]`.
        counts: Number of spikes of each trial `[B]`.
        ends: Cumulative number of spikes up to and including each trial `[B]`.
        spike_neurons: Neuron of each spike, int32 `[B, capacity]`.
        spike_times: Time of each spike in sub-steps, float32 `[B, capacity]`.
        sample: Sample of each spike, int64 `[S]` (out).
        unit: Neuron of each spike, int64 `[S]` (out).
        time: Stamp of each spike (s), float32 `[S]` (out).
        capacity: Largest number of spikes of a trial.
        substep: Length of a sub-step (s).
        resolution: Resolution of the stamps (s).
    """
    b = tl.program_id(0).to(tl.int64)
    number = tl.load(counts + b)
    first = tl.load(ends + b) - number
    phase = tl.load(trials + b * TRIAL_FIELDS + 4).to(tl.float32, bitcast=True)
    for begin in range(0, number, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        is_spike = index < number
        t = tl.load(spike_times + b * capacity + index, mask=is_spike, other=0.0) * substep - phase
        stamp = tl.floor(tl.maximum(t, 0.0) / resolution + 0.5) * resolution
        tl.store(sample + first + index, tl.zeros([BLOCK], tl.int64) + b, mask=is_spike)
        tl.store(
            unit + first + index,
            tl.load(spike_neurons + b * capacity + index, mask=is_spike, other=0).to(tl.int64),
            mask=is_spike,
        )
        tl.store(time + first + index, stamp, mask=is_spike)


@triton.jit
def simulate(
    trials, first, units, times, external, internal, external_circuit, internal_circuit, neuron, circuit, rows, table,
    columns, codes, counts, spike_neurons, spike_times, status,
    per_program, inputs, neurons, recorded, merged, capacity, samples, per_sample, steps,
    clamped, delay, jitter, cadc_noise, saturation, inverse, low, high,
    CLAMPED: tl.constexpr, CONNECTED: tl.constexpr, SATURATING: tl.constexpr,
    NOISY: tl.constexpr, SKEWED: tl.constexpr, RAILED: tl.constexpr, WIDTH: tl.constexpr, CIRCUITS: tl.constexpr,
):  # fmt: skip
    """Simulate the trials of a program: a single trial, or all close trials of a run.

    All arguments without an entry are explained in `parameters.Scalars`.

    Args:
        trials: Entries of each trial, int32 `[B, TRIAL_FIELDS]`.
        first: Index of the first event of each trial and sub-step, int32 `[B steps + 1]`.
        units: Input of each event, int64 `[E]`.
        times: Time of each event in sub-steps, float32 `[E]`.
        external: Signed charges of the synapses of external inputs (weight LSB) `[C, J, N]`.
        internal: Signed charges of the synapses between neurons (weight LSB) `[C, N, N]`.
        external_circuit: Merged circuit that each external input drives, int8 `[J, N]`; -1 for none.
        internal_circuit: Merged circuit that each neuron drives, int8 `[N, N]`; -1 for none.
        neuron: Parameters of the neurons `[C, FIELDS, N]`.
        circuit: Parameters of the merged circuits `[C, CIRCUIT_FIELDS, A, N]`.
        rows: Slow state of the chips `[R, ROW_FIELDS, N]`.
        table: Normal quantiles `[65536]`.
        columns: Column of each neuron in `codes`, int32 `[N]`; -1 where the membrane is not recorded.
        codes: CADC codes, uint8 `[B, T, recorded]` (out).
        counts: Number of spikes of each trial, int32 `[B]` (out).
        spike_neurons: Neuron of each spike, int32 `[B, capacity]` (out).
        spike_times: Time of each spike in sub-steps, float32 `[B, capacity]` (out).
        status: Status of the run, int32 `[3]` (out).
        per_program: Number of trials of a program.
        inputs: Number of external inputs `J`.
        neurons: Number of neurons `N`.
        recorded: Number of neurons whose membranes are recorded.
        merged: Largest number of merged circuits of a neuron `A`.
        capacity: Largest number of spikes of a trial.
        steps: Sub-steps of a trial.
        inverse: Inverse of the saturation; 0 for a linear amplifier.
    """
    n, a = tl.arange(0, WIDTH), tl.arange(0, CIRCUITS)
    is_neuron = n < neurons
    column = tl.load(columns + n, mask=is_neuron, other=-1)
    is_circuit = (n[:, None] < neurons) & (a[None, :] < merged)
    v = tl.zeros([WIDTH], tl.float32)
    held = tl.full([WIDTH], -1.0, tl.float32)
    exc, inh = tl.zeros([WIDTH, CIRCUITS], tl.float32), tl.zeros([WIDTH, CIRCUITS], tl.float32)
    due, next_due = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)  # shares of spikes under way
    n_recorded = samples * per_sample
    for i in range(per_program):
        b = (tl.program_id(0) * per_program + i).to(tl.int64)
        trial = trials + b * TRIAL_FIELDS
        chip = tl.load(trial)
        row = tl.load(trial + 1)
        key0, key1 = tl.load(trial + 2).to(tl.uint32, bitcast=True), tl.load(trial + 3).to(tl.uint32, bitcast=True)
        parameters = neuron + chip * FIELDS * neurons + n
        reset = tl.load(parameters, mask=is_neuron, other=0.0)
        refractory = tl.load(parameters + neurons, mask=is_neuron, other=0.0)
        mem = tl.load(parameters + 2 * neurons, mask=is_neuron, other=0.0)
        noise = tl.load(parameters + 3 * neurons, mask=is_neuron, other=0.0)
        gain = tl.load(parameters + 4 * neurons, mask=is_neuron, other=0.0)
        offset = tl.load(parameters + 5 * neurons, mask=is_neuron, other=0.0)
        early = tl.load(parameters + 6 * neurons, mask=is_neuron, other=0.0)
        slow = rows + row * ROW_FIELDS * neurons + n
        rest = tl.load(slow, mask=is_neuron, other=0.0)
        start = tl.load(slow + neurons, mask=is_neuron, other=0.0)
        threshold = tl.load(slow + 2 * neurons, mask=is_neuron, other=float("inf"))
        plane = merged * neurons
        circuit_parameters = circuit + chip * CIRCUIT_FIELDS * plane + a[None, :] * neurons + n[:, None]
        exc_decay = tl.load(circuit_parameters, mask=is_circuit, other=0.0)
        inh_decay = tl.load(circuit_parameters + plane, mask=is_circuit, other=0.0)
        exc_drive = tl.load(circuit_parameters + 2 * plane, mask=is_circuit, other=0.0)
        inh_drive = tl.load(circuit_parameters + 3 * plane, mask=is_circuit, other=0.0)
        if i == 0:
            v = start
        elif CLAMPED:
            v = reset
            held = tl.full([WIDTH], -1.0, tl.float32)
            exc, inh = exc * clamped, inh * clamped
            due, next_due = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
        previous = v
        spikes = 0
        exc_rest, inh_rest = tl.zeros([WIDTH, CIRCUITS], tl.float32), tl.zeros([WIDTH, CIRCUITS], tl.float32)
        word = n.to(tl.uint32)
        for k in range(steps):
            if (k % per_sample == 0) & (k < n_recorded) & (recorded > 0):
                voltage = v
                if SKEWED:
                    voltage = v - early * (v - previous)
                if RAILED:
                    voltage = _compress(voltage, low, high)
                voltage += cadc_noise * _normal(table, _words(CADC, k // per_sample, n, key0, key1))
                code = gain * (voltage - 128.0) + 128.0 + offset + 0.5
                code = tl.minimum(tl.maximum(code, 0.0), 255.0).to(tl.int32).to(tl.uint8)
                tl.store(codes + (b * samples + k // per_sample) * recorded + column, code, mask=column >= 0)

            # events of this sub-step, and the remaining shares of the events of the previous sub-step
            exc += exc_rest
            inh += inh_rest
            exc_rest, inh_rest = tl.zeros([WIDTH, CIRCUITS], tl.float32), tl.zeros([WIDTH, CIRCUITS], tl.float32)
            for e in range(tl.load(first + b * steps + k), tl.load(first + b * steps + k + 1)):
                share = tl.load(times + e) - k
                source = tl.load(units + e)
                base = external + chip * inputs * neurons
                x = _charges_of_source(base, external_circuit, source, neurons, n, a, is_circuit)
                positive = tl.maximum(x, 0.0)
                negative = tl.maximum(-x, 0.0)
                exc += (1.0 - share) * positive
                inh += (1.0 - share) * negative
                exc_rest += share * positive
                inh_rest += share * negative
            if CONNECTED:
                waiting = due != 0
                n_waiting = tl.sum(waiting.to(tl.int32), 0)
                while n_waiting > 0:
                    source = tl.min(tl.where(waiting, n, WIDTH), 0)
                    chosen = n == source
                    share = tl.sum(tl.where(chosen, due, 0.0), 0)
                    base = internal + chip * neurons * neurons
                    x = _charges_of_source(base, internal_circuit, source, neurons, n, a, is_circuit)
                    exc += share * tl.maximum(x, 0.0)
                    inh += share * tl.maximum(-x, 0.0)
                    waiting = waiting & (n != source)
                    n_waiting -= 1
            due = next_due
            next_due = tl.zeros([WIDTH], tl.float32)

            # membranes
            if SATURATING:
                flow = exc_drive * (_pade_tanh(exc * inverse) * saturation)
                flow += inh_drive * (_pade_tanh(inh * inverse) * saturation)
            else:
                flow = exc_drive * exc + inh_drive * inh
            exc, inh = exc * exc_decay, inh * inh_decay
            potential = v * mem + rest + tl.sum(flow, 1)
            if NOISY:
                if k % 2 == 0:
                    word = _words(MEMBRANE, k // 2, n, key0, key1)
                potential += noise * _normal(table, word)
                word = word >> 16
            potential = tl.minimum(tl.maximum(potential, low), high)
            share = tl.minimum(tl.maximum(held, 0.0), 1.0)
            rise = potential - reset  # what a refractory membrane would have gained over the whole sub-step
            potential = tl.where(share > 0, potential - rise * share, potential)
            # start of the straight line that reaches v at the end of the sub-step; the line of a held membrane is flat
            previous = tl.where(share > 0, tl.where(share < 1, potential - rise, potential), v)
            held = tl.maximum(held - 1.0, -1.0)
            v = potential

            fired = (v > threshold) & (held < 0)
            number = tl.sum(fired.to(tl.int32), 0)
            if number > 0:
                rise = v - previous
                part = tl.where(rise > 0, (threshold - previous) / tl.where(rise > 0, rise, 1.0), 1.0)
                part = tl.minimum(tl.maximum(part, 0.0), 1.0)
                deviation = jitter * _normal(table, _words(JITTER, k, n, key0, key1))
                if k < n_recorded:
                    place = spikes + tl.cumsum(fired.to(tl.int32), 0) - 1
                    fits = fired & (place < capacity)
                    tl.store(spike_neurons + b * capacity + place, n, mask=fits)
                    tl.store(spike_times + b * capacity + place, k + part + deviation, mask=fits)
                    spikes += number
                v, previous = tl.where(fired, reset, v), tl.where(fired, reset, previous)
                held = tl.where(fired, tl.maximum(refractory - (1.0 - part), 0.0), held)
                # arrival relative to the next sub-step; the two shares conserve charge and mean time
                late = part + deviation + delay - 1.0
                due += tl.where(fired, 1.0 - late, 0.0)
                next_due = tl.where(fired, late, 0.0)
        tl.store(counts + b, spikes)
        tl.atomic_add(status + TOTAL, spikes)
        tl.atomic_max(status + LARGEST, spikes)
