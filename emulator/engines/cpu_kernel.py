"""The engine for CPUs: the equations of `dynamics.py`, compiled with numba.

One call simulates a range of samples from start to end. The whole state of a sample stays in the first-level cache,
and the inner loops run over neurons, so that they become vector instructions. `readable.py` says the same in
torch.

State and parameters of all neurons lie in one flat array, in blocks of `LANES` neurons: field f of lane l of block b is
`state[(b * fields + f) * LANES + l]`. The distance between two fields is therefore a constant. The compiler concludes
that the fields do not overlap and emits one vector loop over many of them. For separate arrays it would have to check
at run time, and it gives up beyond a few arrays. Each such loop is a function of its own, because it is not vectorised
when it is inlined. Indices are unsigned (`uptr`), because a signed index may count from the end and needs a check.

Times are in sub-steps. The charge of an event between two sub-steps is split between both, such that total charge and
mean time are conserved (the error is of second order in the sub-step).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from hxtrain.emulator.parameters import STREAM_CADC, STREAM_JITTER, STREAM_MEMBRANE, Float, Int, Params, Rows, Scalars

Function = TypeVar("Function", bound=Callable[..., Any])
u32 = np.uint32
f32 = np.float32
uptr = np.uintp
LANES = uptr(128)
"""Neurons of a block."""
REST, MEM, THRESHOLD, NOISE, EARLY, V, PREVIOUS, SLOPE, EVEN, ODD = (uptr(i) for i in range(10))
"""Fields of a neuron. The noise of two consecutive sub-steps, even and odd, is drawn together."""
FIXED = uptr(10)
"""Index of the first field of the merged circuits."""
EXC, INH, EXC_DECAY, INH_DECAY, EXC_DRIVE, INH_DRIVE, PER_CIRCUIT = (uptr(i) for i in range(7))
"""Fields of a merged circuit, and their number."""
EMPTY_LANE_THRESHOLD = f32(3e38)
"""Threshold of a lane that pads a block and has no neuron: no membrane reaches it."""

OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}


def _compiled(function: Function) -> Function:
    return cast("Function", numba.njit(**OPTIONS)(function))


def _compiled_inline(function: Function) -> Function:
    return cast("Function", numba.njit(inline="always", **OPTIONS)(function))


@_compiled_inline
def _mix(x):
    x = u32(x ^ (x >> u32(16)))
    x = u32(x * u32(0x7FEB352D))
    x = u32(x ^ (x >> u32(15)))
    x = u32(x * u32(0x846CA68B))
    return u32(x ^ (x >> u32(16)))


@_compiled_inline
def _word(stream, step, neuron, key0, key1):
    counter = u32((u32(stream) << u32(28)) | (u32(step) << u32(12)) | u32(neuron))
    return _mix(u32(_mix(u32(counter ^ key0)) + key1))


@_compiled_inline
def _pade_tanh(x):
    square = x * x
    return min(x * (f32(15) + square) / (f32(15) + f32(6) * square), f32(1))


# Loading and storing


@_compiled
def _aligned_buffer(size):
    """Return a float32 buffer that starts at a cache line, so that no vector crosses two lines."""
    buffer = np.empty(uptr(size) + uptr(16), f32)
    padding = uptr(16) - uptr(buffer.ctypes.data // 4) % uptr(16)
    return buffer[padding : padding + uptr(size)]


@_compiled
def _load(state, fields, p, c, rest, threshold):
    """Write the parameters of a chip and its slow state; lanes without a neuron never fire."""
    state[:] = 0
    for n in range(state.shape[0] // fields):
        block = n // LANES
        lane = n % LANES
        index = block * fields * LANES + lane
        if n >= rest.shape[0]:
            state[index + THRESHOLD * LANES] = EMPTY_LANE_THRESHOLD
            continue
        state[index + REST * LANES] = rest[n]
        state[index + MEM * LANES] = p.mem[c, n]
        state[index + THRESHOLD * LANES] = threshold[n]
        state[index + NOISE * LANES] = p.noise[c, n]
        state[index + EARLY * LANES] = p.early[n]
        for a in range(p.syn.shape[1]):
            circuit = index + (FIXED + PER_CIRCUIT * uptr(a)) * LANES
            state[circuit + EXC_DECAY * LANES] = p.syn[c, a, 0, n]
            state[circuit + INH_DECAY * LANES] = p.syn[c, a, 1, n]
            state[circuit + EXC_DRIVE * LANES] = p.drive[c, a, 0, n]
            state[circuit + INH_DRIVE * LANES] = p.drive[c, a, 1, n]


@_compiled
def _set(state, fields, field, values):
    """Write a field of all neurons."""
    for n in range(values.shape[0]):
        state[_place(fields, field, uptr(n))] = values[n]


@_compiled_inline
def _place(fields, field, n):
    """Return the index of a neuron's field."""
    return ((n // LANES) * fields + field) * LANES + n % LANES


@_compiled
def _scale_currents(state, fields, factor):
    """Multiply all synaptic currents."""
    for block in range(uptr(state.shape[0]) // (fields * LANES)):
        for field in range(FIXED, fields, PER_CIRCUIT):
            index = (block * fields + field) * LANES
            for i in range(uptr(2) * LANES):
                state[index + i] *= factor


# Weights and spikes


@_compiled
def write_charges(weights: npt.NDArray[np.int16], factor: Float, first: int, charges: Float) -> None:
    """Write the signed charges that an event delivers through integer weights.

    Args:
        weights: Integer weights, int16 `[J, N]`.
        factor: Strength of each excitatory and inhibitory synapse `[2, J, N]`.
        first: Column of `charges` for the first target.
        charges: Signed charges (weight LSB) `[J, ...]` (out).
    """
    for j in range(weights.shape[0]):
        _write_row(weights[j], factor[0, j], factor[1, j], charges[j, first:])


@_compiled
def _write_row(weights, excitatory, inhibitory, charges):
    for n in range(weights.shape[0]):
        # both factors are read unconditionally: only then the loop becomes vector instructions
        w = f32(weights[n])
        exc = excitatory[n]
        inh = inhibitory[n]
        charges[n] = w * (exc if w > 0 else inh)


@_compiled
def collect_spikes(counts: Int, spike_neurons: Int, spike_times: Float, sample: Int, unit: Int, time: Float) -> None:
    """Concatenate the spikes of all samples, `[B, capacity]` to `[S]`."""
    i = 0
    for b in range(counts.shape[0]):
        for s in range(counts[b]):
            sample[i] = b
            unit[i] = spike_neurons[b, s]
            time[i] = spike_times[b, s]
            i += 1


# Events


@_compiled
def _sort_by_step(times, steps, first, cursor, order):
    """Sort the events of a sample by sub-step: `order[first[k]:first[k + 1]]` are the events of step k."""
    first[:] = 0
    for e in range(times.shape[0]):
        if times[e] < steps:
            first[int(times[e]) + 1] += 1
    for k in range(steps):
        first[k + 1] += first[k]
        cursor[k] = first[k]
    for e in range(times.shape[0]):
        if times[e] < steps:
            k = int(times[e])
            order[cursor[k]] = e
            cursor[k] += 1


@_compiled_inline
def _deliver_row(charges, row, share, circuits, source, bounds, state, fields):
    """Add a row of charges to the currents of the circuits that its source reaches in each group."""
    for g in range(circuits.shape[1]):
        a = circuits[source, g]
        if a >= 0:
            first = uptr(bounds[g])
            last = uptr(bounds[g + 1])
            for block in range(first // LANES, (last + LANES - uptr(1)) // LANES):
                begin = block * LANES
                low = max(first, begin) - begin
                high = min(last, begin + LANES) - begin
                index = (block * fields + FIXED + PER_CIRCUIT * uptr(a)) * LANES
                for lane in range(low, high):
                    x = charges[row + begin + lane]
                    state[index + EXC * LANES + lane] += share * max(x, f32(0))
                    state[index + INH * LANES + lane] -= share * min(x, f32(0))


@_compiled
def _deliver_external(k, event0, units, times, order, first, charges, chip, neurons, circuits, bounds, state, fields):
    """Deliver the events of sub-step k and the remaining shares of the events of sub-step k - 1."""
    for i in range(first[k - 1] if k > 0 else 0, first[k + 1]):
        e = event0 + order[i]
        fraction = f32(times[e]) - f32(int(times[e]))
        part = fraction if i < first[k] else f32(1) - fraction
        unit = units[e]
        row = uptr((chip * circuits.shape[0] + unit) * neurons)
        _deliver_row(charges, row, part, circuits, unit, bounds, state, fields)


@_compiled
def _deliver_internal(k, sender, share, n_sent, charges, chip, neurons, circuits, bounds, state, fields):
    """Deliver the spikes of neurons that are due in this sub-step, and empty their list."""
    slot = k % 2
    for i in range(n_sent[slot]):
        n = sender[slot, i]
        row = uptr((chip * neurons + n) * neurons)
        _deliver_row(charges, row, share[slot, i], circuits, n, bounds, state, fields)
    n_sent[slot] = 0


# Dynamics


@_compiled
def _synapses_saturating(state, base, index, saturation, inverse):
    """Add the currents of a circuit to the slopes of the membranes, and apply the decay of the currents."""
    for lane in range(LANES):
        e, i = state[index + EXC * LANES + lane], state[index + INH * LANES + lane]
        slope = state[base + SLOPE * LANES + lane]
        slope += state[index + EXC_DRIVE * LANES + lane] * (_pade_tanh(e * inverse) * saturation)
        slope += state[index + INH_DRIVE * LANES + lane] * (_pade_tanh(i * inverse) * saturation)
        state[base + SLOPE * LANES + lane] = slope
        state[index + EXC * LANES + lane] = e * state[index + EXC_DECAY * LANES + lane]
        state[index + INH * LANES + lane] = i * state[index + INH_DECAY * LANES + lane]


@_compiled
def _synapses_linear(state, base, index):
    for lane in range(LANES):
        e, i = state[index + EXC * LANES + lane], state[index + INH * LANES + lane]
        slope = state[base + SLOPE * LANES + lane]
        slope += state[index + EXC_DRIVE * LANES + lane] * e
        slope += state[index + INH_DRIVE * LANES + lane] * i
        state[base + SLOPE * LANES + lane] = slope
        state[index + EXC * LANES + lane] = e * state[index + EXC_DECAY * LANES + lane]
        state[index + INH * LANES + lane] = i * state[index + INH_DECAY * LANES + lane]


@_compiled
def _words(stream, step, first, key0, key1, words):
    """Draw a random word for each neuron, starting with neuron `first`."""
    for lane in range(words.shape[0]):
        words[lane] = _word(stream, step, first + lane, key0, key1)


@_compiled
def _draw_noise(state, base, step, first, key0, key1, table, words):
    """Draw the membranes' noise of two sub-steps."""
    _words(STREAM_MEMBRANE, step, first, key0, key1, words)
    for lane in range(LANES):
        word = words[lane]
        scale = state[base + NOISE * LANES + lane]
        state[base + EVEN * LANES + lane] = table[word & u32(0xFFFF)] * scale
        state[base + ODD * LANES + lane] = table[word >> u32(16)] * scale


@_compiled
def _membranes(state, base, noise, low, high):
    """Advance the membranes of a block; return how many are above their thresholds."""
    n_above = 0
    for lane in range(LANES):
        x = state[base + V * LANES + lane]
        slope = state[base + SLOPE * LANES + lane] + state[base + noise * LANES + lane]
        y = min(max(x * state[base + MEM * LANES + lane] + slope, low), high)
        state[base + PREVIOUS * LANES + lane] = x
        state[base + V * LANES + lane] = y
        n_above += 1 if y > state[base + THRESHOLD * LANES + lane] else 0
    return n_above


@_compiled
def _advance(state, fields, k, key0, key1, table, words, noisy, saturation, inverse, low, high):
    """Advance all currents and membranes by sub-step k; return how many membranes are above their thresholds."""
    n_above = 0
    size = fields * LANES
    noise = EVEN if k % 2 == 0 else ODD
    for block in range(uptr(state.shape[0]) // size):
        base = block * size
        for lane in range(LANES):
            state[base + SLOPE * LANES + lane] = state[base + REST * LANES + lane]
        for field in range(FIXED, fields, PER_CIRCUIT):
            if saturation > 0:
                _synapses_saturating(state, base, base + field * LANES, saturation, inverse)
            else:
                _synapses_linear(state, base, base + field * LANES)
        if noisy and k % 2 == 0:
            _draw_noise(state, base, k // 2, np.int64(block * LANES), key0, key1, table, words)
        n_above += _membranes(state, base, noise, low, high)
    return n_above


@_compiled
def _hold_reset(state, fields, held, reset, refractory, n_refractory):
    """Clamp the membranes listed in `refractory[:n_refractory]`; return the number that stays on the list.

    `held` is the remaining refractory period in sub-steps. A membrane whose period ends within the sub-step moves for
    the rest of the sub-step and may spike (its `held` is then negative).
    """
    n_held = 0
    for i in range(n_refractory):
        n = refractory[i]
        index, previous_index = _place(fields, V, uptr(n)), _place(fields, PREVIOUS, uptr(n))
        share = min(max(held[n], f32(0)), f32(1))
        rise = state[index] - reset[n]  # what the membrane would have gained over the whole sub-step
        state[index] -= rise * share
        # start of the straight line that reaches v at the end of the sub-step; the line of a held membrane is flat
        state[previous_index] = state[index] - rise if share < 1 else state[index]
        held[n] -= f32(1)
        if held[n] >= 0:
            refractory[n_held] = n
            n_held += 1
        else:
            held[n] = f32(-1)
    return n_held


@_compiled_inline
def _any_above(state, base):
    n_above = 0
    for lane in range(LANES):
        n_above += 1 if state[base + V * LANES + lane] > state[base + THRESHOLD * LANES + lane] else 0
    return n_above > 0


@_compiled_inline
def _time_of_crossing(start, end, threshold):
    """Return the time (in sub-steps) at which the straight line from `start` to `end` crosses the threshold."""
    rise = end - start
    if rise <= 0:
        return f32(1)
    return min(max((threshold - start) / rise, f32(0)), f32(1))


@_compiled
def _fire(
    k, key0, key1, state, fields, held, reset, period, refractory, n_refractory, spikes, sender, share, n_sent, table,
    jitter, delay, is_recorded, spike_neurons, spike_times,
):  # fmt: skip
    """Reset and record the neurons above threshold; return the counts of refractory neurons and of spikes.

    Spikes in the gap that follows the recorded window reach their targets but are not recorded.
    """
    second_slot = k % 2
    next_slot = (k + 1) % 2
    for block in range(uptr(state.shape[0]) // (fields * LANES)):
        base = block * fields * LANES
        if not _any_above(state, base):
            continue
        for lane in range(LANES):
            index = base + V * LANES + lane
            previous_index = base + PREVIOUS * LANES + lane
            n = np.int64(block * LANES + lane)
            threshold = state[base + THRESHOLD * LANES + lane]
            if state[index] <= threshold or held[n] >= 0:
                continue
            deviation = jitter * table[_word(STREAM_JITTER, k, n, key0, key1) & u32(0xFFFF)]
            part = _time_of_crossing(state[previous_index], state[index], threshold)
            if is_recorded:
                if spikes < spike_neurons.shape[0]:
                    spike_neurons[spikes] = n
                    spike_times[spikes] = f32(k) + part + deviation
                spikes += 1
            state[index] = reset[n]
            state[previous_index] = reset[n]
            held[n] = max(period[n] - (f32(1) - part), f32(0))
            refractory[n_refractory] = n
            n_refractory += 1
            # arrival relative to the next sub-step; the two shares conserve charge and mean time
            late = part + deviation + delay - f32(1)
            sender[next_slot, n_sent[next_slot]] = n
            share[next_slot, n_sent[next_slot]] = f32(1) - late
            sender[second_slot, n_sent[second_slot]] = n
            share[second_slot, n_sent[second_slot]] = late
            n_sent[next_slot] += 1
            n_sent[second_slot] += 1
    return n_refractory, spikes


# Readout


@_compiled_inline
def _compress(x, low, high):
    """Soft limit of the readout: the outer 10 LSB approach the rail."""
    top = high - f32(10)
    bottom = low + f32(10)
    inverse = f32(0.1)
    excess, deficit = max(x - top, f32(0)), max(bottom - x, f32(0))
    x = min(max(x, bottom), top)
    return x + f32(10) * (_pade_tanh(excess * inverse) - _pade_tanh(deficit * inverse))


@_compiled
def _read_cadc(
    state, fields, k, key0, key1, table, voltages, words, skewed, railed, low, high, noise, gain, offset, begin, end,
    codes,
):  # fmt: skip
    """Write 8-bit samples of neurons `begin` to `end` to `codes`; `voltages` and `words` are scratch space."""
    for block in range(begin // LANES, (end + LANES - uptr(1)) // LANES):
        base = block * fields * LANES
        first = block * LANES
        for lane in range(LANES):
            v = state[base + V * LANES + lane]
            voltages[lane] = v
            if skewed:
                voltages[lane] = v - state[base + EARLY * LANES + lane] * (v - state[base + PREVIOUS * LANES + lane])
        if railed:
            for lane in range(LANES):
                voltages[lane] = _compress(voltages[lane], low, high)
        if noise > 0:
            _words(STREAM_CADC, k, np.int64(first), key0, key1, words)
            for lane in range(LANES):
                voltages[lane] += noise * table[words[lane] & u32(0xFFFF)]
        for n in range(max(first, begin), min(first + LANES, end)):
            x = gain[n] * (voltages[n - first] - f32(128)) + f32(128) + offset[n] + f32(0.5)
            codes[n - begin] = np.uint8(np.int32(min(max(x, f32(0)), f32(255))))


class Inputs(NamedTuple):
    """The trials of a run.

    Attributes:
        offsets: Index of the first event of each sample `[B + 1]`.
        units: Input of each event `[E]`.
        times: Time of each event in sub-steps `[E]`.
        external: Signed charges of the external synapses (weight LSB) `[C, J, N]`.
        internal: Signed charges of the synapses between neurons (weight LSB) `[C, N, N]`.
        chip: Index of the chip of each sample `[B]`.
        row: Index into the slow state of each sample `[B]`.
        keys: Noise keys of each sample `[B, 2]`.
    """

    offsets: Int
    units: Int
    times: Float
    external: Float
    internal: Float
    chip: Int
    row: Int
    keys: npt.NDArray[np.uint32]


class Outputs(NamedTuple):
    """What a run writes.

    Attributes:
        codes: CADC codes `[B, T, recorded neurons]`.
        counts: Number of spikes of each sample `[B]`.
        spike_neurons: Neuron of each spike `[B, capacity]`; spikes beyond the capacity are only counted.
        spike_times: Time of each spike in sub-steps `[B, capacity]`.
    """

    codes: npt.NDArray[np.uint8]
    counts: Int
    spike_neurons: Int
    spike_times: Float


@_compiled
def simulate(begin: int, end: int, inputs: Inputs, rows: Rows, p: Params, s: Scalars, outputs: Outputs) -> None:
    """Simulate samples `begin` to `end` of a batch.

    Args:
        begin: First sample.
        end: Index after the last sample.
        inputs: Events, charges, and what each sample runs on.
        rows: Slow state of the chips.
        p: Parameters of the chips.
        s: Scalar settings.
        outputs: Codes and spikes (out).
    """
    offsets, units, times, external, internal, chip, row, keys = inputs
    codes, counts, spike_neurons, spike_times = outputs
    neurons = p.mem.shape[1]
    n_recorded = s.samples * s.per_sample
    steps = n_recorded if s.gap < 0 or s.clamped >= 0 else n_recorded + s.gap
    fields = FIXED + PER_CIRCUIT * uptr(p.syn.shape[1])
    blocks = (uptr(neurons) + LANES - uptr(1)) // LANES
    state = _aligned_buffer(blocks * fields * LANES)
    held = np.empty(neurons, f32)
    voltages = _aligned_buffer(LANES)
    words = _aligned_buffer(LANES).view(u32)
    refractory = np.empty(neurons, np.int64)
    first = np.empty(steps + 1, np.int64)
    cursor = np.empty(steps, np.int64)
    order = np.empty(units.shape[0], np.int64)
    # spikes under way: lists for even and for odd sub-steps of arrival
    sender = np.empty((2, 2 * neurons), np.int64)
    share = np.empty((2, 2 * neurons), f32)
    n_sent = np.zeros(2, np.int64)
    external_charges, internal_charges = external.reshape(-1), internal.reshape(-1)
    saturation = f32(s.saturation)
    inverse = f32(1.0 / s.saturation if s.saturation > 0 else 0.0)
    low = f32(s.low)
    high = f32(s.high)
    jitter = f32(s.jitter)
    delay = f32(s.delay)
    n_refractory = 0
    for b in range(begin, end):
        key0 = keys[b, 0]
        key1 = keys[b, 1]
        event0 = offsets[b]
        c = chip[b]
        r = row[b]
        reset = p.reset[c]
        period = p.refractory[c]
        gain = p.cadc_gain[c]
        offset = p.cadc_offset[c]
        _sort_by_step(times[event0 : offsets[b + 1]], steps, first, cursor, order)
        if s.gap < 0 or b == begin:
            _load(state, fields, p, c, rows.rest[r], rows.threshold[r])
            _set(state, fields, V, rows.start[r])
            held[:] = -1
            n_sent[:] = 0
            n_refractory = 0
        else:
            _set(state, fields, REST, rows.rest[r])
            _set(state, fields, THRESHOLD, rows.threshold[r])
            if s.clamped >= 0:
                _scale_currents(state, fields, f32(s.clamped))
                _set(state, fields, V, reset)
                held[:] = -1
                n_sent[:] = 0
                n_refractory = 0
        for n in range(uptr(neurons)):
            state[_place(fields, PREVIOUS, n)] = state[_place(fields, V, n)]
        spikes = 0
        for k in range(steps):
            if k % s.per_sample == 0 and k < n_recorded:
                i = k // s.per_sample
                column = 0
                for window in range(p.windows.shape[0]):
                    begin_n, end_n = p.windows[window, 0], p.windows[window, 1]
                    _read_cadc(
                        state, fields, i, key0, key1, p.table, voltages, words, s.skewed, s.railed, low, high,
                        f32(s.cadc_noise), gain, offset, uptr(begin_n), uptr(end_n), codes[b, i, column:],
                    )  # fmt: skip
                    column += end_n - begin_n
            if first[k + 1] > (first[k - 1] if k > 0 else 0):
                _deliver_external(
                    k, event0, units, times, order, first, external_charges, c, neurons, p.external_circuit, p.bounds,
                    state, fields,
                )  # fmt: skip
            if n_sent[k % 2] > 0:
                _deliver_internal(
                    k, sender, share, n_sent, internal_charges, c, neurons, p.internal_circuit, p.bounds, state, fields
                )
            n_above = _advance(state, fields, k, key0, key1, p.table, words, s.noisy, saturation, inverse, low, high)
            n_clamped = n_refractory
            if n_refractory > 0:
                n_refractory = _hold_reset(state, fields, held, reset, refractory, n_refractory)
            if n_above > 0 or n_clamped > 0:
                n_refractory, spikes = _fire(
                    k, key0, key1, state, fields, held, reset, period, refractory, n_refractory, spikes,
                    sender, share, n_sent, p.table, jitter, delay, k < n_recorded, spike_neurons[b], spike_times[b],
                )  # fmt: skip
        counts[b] = spikes
