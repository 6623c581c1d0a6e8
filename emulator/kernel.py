"""The fast engine: the equations of `dynamics.py`, compiled for the CPU with numba.

One call simulates some samples from start to end; a sample's whole state (membranes, synaptic
currents, refractory clocks of all neurons) stays in the first-level cache, and the inner loops
run over neurons, so that they become vector instructions. Loops are kept apart and short because
the compiler only vectorises loops over few arrays. `stepwise.py` says the same readably.

Times are in sub-steps here. An event between two sub-steps is shared between them such that its
charge and its mean time are kept (error of second order in the sub-step).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
u32, f32 = np.uint32, np.float32

STREAM_MEMBRANE, STREAM_CADC, STREAM_JITTER = 0, 1, 2
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
}


_compiled: Any = numba.njit(**OPTIONS)
_compiled_inline: Any = numba.njit(inline="always", **OPTIONS)


class Params(NamedTuple):
    """Parameters of configured chips (`C` chips, `N` neurons, `A` merged circuits, `G` groups)."""

    reset: Float  # [C, N]
    refractory: Float  # [C, N] in sub-steps
    mem: Float  # [C, N]
    syn: Float  # [C, A, 2, N]
    drive: Float  # [C, A, 2, N]
    noise: Float  # [C, N]
    cadc_offset: Float  # [C, N]
    cadc_gain: Float  # [C, N]
    early: Float  # [N] share of a sub-step by which a neuron is sampled before the others
    bounds: Int  # [G + 1]
    external_circuit: Int  # [J, G], -1 where not connected
    internal_circuit: Int  # [N, G], -1 where not connected
    table: Float  # [65536]


class Rows(NamedTuple):
    """What a chip's clock changes slowly (`R` rows; a trial uses one of them)."""

    rest: Float  # [R, N] part of the rest that one sub-step restores
    start: Float  # [R, N] membrane at the start of a trial
    threshold: Float  # [R, N]


class Scalars(NamedTuple):
    """Scalar settings of configured chips."""

    samples: int  # trace samples per trial
    per_sample: int  # sub-steps between two samples
    gap: int  # sub-steps from the end of the recording to the next trial; -1: trials start at rest
    clamped: float  # factor on synaptic currents when the gap is a forced reset; -1 without
    delay: float  # on-chip latency in sub-steps
    jitter: float  # spike-time noise in sub-steps
    cadc_noise: float  # LSB
    saturation: float  # weight LSB; 0 for a linear amplifier
    low: float  # lower rail, LSB
    high: float  # upper rail, LSB
    railed: bool
    noisy: bool  # membrane noise
    skewed: bool  # some neurons are sampled earlier


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


@_compiled
def _words(stream, step, key0, key1, words):
    for n in range(words.shape[0]):
        words[n] = _word(stream, step, n, key0, key1)


@_compiled
def _membrane_noise(words, table, scale, even, odd):
    for n in range(scale.shape[0]):
        even[n] = table[words[n] & u32(0xFFFF)] * scale[n]
        odd[n] = table[words[n] >> u32(16)] * scale[n]


@_compiled
def _add(x, y):
    for n in range(x.shape[0]):
        x[n] += y[n]


@_compiled_inline
def _pade_tanh(x):
    square = x * x
    return min(x * (f32(15) + square) / (f32(15) + f32(6) * square), f32(1))


@_compiled
def _synapses_saturating(current, decay, drive, slope, saturation, inverse):
    for n in range(current.shape[0]):
        x = current[n]
        slope[n] += drive[n] * (_pade_tanh(x * inverse) * saturation)
        current[n] = x * decay[n]


@_compiled
def _synapses_linear(current, decay, drive, slope):
    for n in range(current.shape[0]):
        x = current[n]
        slope[n] += drive[n] * x
        current[n] = x * decay[n]


@_compiled
def _deliver(charge, share, exc, inh):
    for n in range(charge.shape[0]):
        x = charge[n]
        exc[n] += share * max(x, f32(0))
        inh[n] -= share * min(x, f32(0))


@_compiled
def _deliver_row(charge, share, circuit, bounds, current):
    for g in range(circuit.shape[0]):
        a = circuit[g]
        if a >= 0:
            first, last = bounds[g], bounds[g + 1]
            _deliver(charge[first:last], share, current[a, 0, first:last], current[a, 1, first:last])


@_compiled
def _membrane(v, before, slope, mem, low, high):
    for n in range(v.shape[0]):
        x = v[n]
        before[n] = x
        v[n] = min(max(x * mem[n] + slope[n], low), high)


@_compiled
def _hold_reset(v, before, held, reset, resting, count):
    """Clamp the refractory membranes, listed in `resting[:count]`; return how many stay on the list.

    `held` is the rest of the refractory period in sub-steps; a membrane whose period ends within the
    sub-step moves for the rest of it, and may spike (`held` is negative then).
    """
    kept = 0
    for i in range(count):
        n = resting[i]
        share = min(max(held[n], f32(0)), f32(1))
        rise = v[n] - reset[n]  # what the membrane would have gained over the whole sub-step
        v[n] -= rise * share
        # start of the straight line that reaches v at the sub-step's end; held all the time, it is flat
        before[n] = v[n] - rise if share < 1 else v[n]
        held[n] -= f32(1)
        if held[n] >= 0:
            resting[kept] = n
            kept += 1
        else:
            held[n] = f32(-1)
    return kept


@_compiled
def _count_above(v, threshold):
    above = 0
    for n in range(v.shape[0]):
        above += 1 if v[n] > threshold[n] else 0
    return above


@_compiled
def _compress(v, low, high):
    """Soft limit of the readout: the outer 10 LSB approach the rail."""
    top, bottom, inverse = high - f32(10), low + f32(10), f32(0.1)
    for n in range(v.shape[0]):
        x = v[n]
        above, below = max(x - top, f32(0)), max(bottom - x, f32(0))
        x = min(max(x, bottom), top)
        v[n] = x + f32(10) * (_pade_tanh(above * inverse) - _pade_tanh(below * inverse))


@_compiled
def _cadc_noise(words, table, noise, seen):
    for n in range(seen.shape[0]):
        seen[n] += noise * table[words[n] & u32(0xFFFF)]


@_compiled
def _to_codes(seen, gain, offset, codes):
    for n in range(seen.shape[0]):
        x = gain[n] * (seen[n] - f32(128)) + f32(128) + offset[n] + f32(0.5)
        codes[n] = np.uint8(np.int32(min(max(x, f32(0)), f32(255))))


@_compiled
def _look_back(v, before, early, seen):
    for n in range(v.shape[0]):
        seen[n] = v[n] - early[n] * (v[n] - before[n])


@_compiled
def _read_cadc(v, before, k, key0, key1, p, c, s, seen, words, codes):
    """Write 8-bit samples of the membranes to `codes`; `seen` and `words` are scratch space."""
    if s.skewed:
        _look_back(v, before, p.early, seen)
    else:
        seen[:] = v
    if s.railed:
        _compress(seen, f32(s.low), f32(s.high))
    if s.cadc_noise > 0:
        _words(STREAM_CADC, k, key0, key1, words)
        _cadc_noise(words, p.table, f32(s.cadc_noise), seen)
    _to_codes(seen, p.cadc_gain[c], p.cadc_offset[c], codes)


@_compiled
def _sort_by_step(times, steps, first, cursor, order):
    """Bucket a sample's events by sub-step: those of step k are `order[first[k]:first[k + 1]]`."""
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


@_compiled
def _time_of_crossing(before, after, threshold):
    """Return the fraction of a sub-step after which a straight line crosses the threshold."""
    rise = after - before
    if rise <= 0:
        return f32(1)
    return min(max((threshold - before) / rise, f32(0)), f32(1))


@_compiled
def _deliver_external(k, event0, units, times, order, first, external, p, current):
    """Deliver the events of sub-step k, and the remainders of those of the one before."""
    for i in range(first[k - 1] if k > 0 else 0, first[k + 1]):
        e = event0 + order[i]
        fraction = f32(times[e]) - f32(int(times[e]))
        part = fraction if i < first[k] else f32(1) - fraction
        _deliver_row(external[units[e]], part, p.external_circuit[units[e]], p.bounds, current)


@_compiled
def _deliver_internal(k, sender, share, sent, internal, p, current):
    """Deliver what neurons sent for this sub-step, and empty that list."""
    now = k % 2
    for i in range(sent[now]):
        n = sender[now, i]
        _deliver_row(internal[n], share[now, i], p.internal_circuit[n], p.bounds, current)
    sent[now] = 0


@_compiled
def _synapses(current, p, c, saturation, inverse, slope):
    """Add the synaptic currents of all circuits and signs to `slope`, and let them decay."""
    for a in range(current.shape[0]):
        for sign in range(2):
            x, decay, drive = current[a, sign], p.syn[c, a, sign], p.drive[c, a, sign]
            if saturation > 0:
                _synapses_saturating(x, decay, drive, slope, saturation, inverse)
            else:
                _synapses_linear(x, decay, drive, slope)


@_compiled
def _fire(
    k, key0, key1, v, before, held, threshold, resting, refractory, spikes, sender, share, sent, p, c, s, who, when
):
    """Reset and record the neurons above threshold; returns the counts of resting neurons and of spikes.

    In the gap behind the recorded window spikes act, but are not recorded.
    """
    now, later = k % 2, (k + 1) % 2
    recorded = k < s.samples * s.per_sample
    for n in range(v.shape[0]):
        if v[n] <= threshold[n] or held[n] >= 0:
            continue
        word = _word(STREAM_JITTER, k, n, key0, key1)
        jitter = f32(s.jitter) * p.table[word & u32(0xFFFF)]
        part = _time_of_crossing(before[n], v[n], threshold[n])
        if recorded:
            if spikes < who.shape[0]:
                who[spikes] = n
                when[spikes] = f32(k) + part + jitter
            spikes += 1
        v[n] = p.reset[c, n]
        before[n] = v[n]
        held[n] = max(p.refractory[c, n] - (f32(1) - part), f32(0))
        resting[refractory] = n
        refractory += 1
        # arrival relative to the next sub-step; the two shares keep charge and mean time
        late = part + jitter + f32(s.delay) - f32(1)
        sender[later, sent[later]], share[later, sent[later]] = n, f32(1) - late
        sender[now, sent[now]], share[now, sent[now]] = n, late
        sent[later] += 1
        sent[now] += 1
    return refractory, spikes


@_compiled
def simulate(
    begin, end, offsets, units, times, external, internal, chip, row, keys, rows, p, s, codes, counts, who, when
):
    """Simulate samples `begin` to `end` of a batch.

    Args:
        offsets: [B + 1] first event of each sample. units: [E]. times: [E] in sub-steps.
        external: [C, J, N] signed charges of the external synapses (weight LSB). internal: [C, N, N].
        chip, row: [B] chip and row of `rows` of each sample. keys: [B, 2].
        codes: [B, T, N] (out). counts: [B] spikes of each sample (out); who, when: [B, capacity]
            their neurons and times in sub-steps (out); spikes beyond the capacity are only counted.
    """
    neurons, recorded = p.mem.shape[1], s.samples * s.per_sample
    steps = recorded if s.gap < 0 or s.clamped >= 0 else recorded + s.gap
    current = np.empty((p.syn.shape[1], 2, neurons), f32)
    v, before, held = np.empty(neurons, f32), np.empty(neurons, f32), np.empty(neurons, f32)
    slope = np.empty(neurons, f32)
    even, odd, words = np.zeros(neurons, f32), np.zeros(neurons, f32), np.empty(neurons, u32)
    resting = np.empty(neurons, np.int64)
    first, cursor = np.empty(steps + 1, np.int64), np.empty(steps, np.int64)
    order = np.empty(units.shape[0], np.int64)
    # events that neurons sent: to be delivered at the next sub-step and at the one after it
    sender = np.empty((2, 2 * neurons), np.int64)
    share = np.empty((2, 2 * neurons), f32)
    sent = np.zeros(2, np.int64)
    saturation, inverse = f32(s.saturation), f32(1.0 / s.saturation if s.saturation > 0 else 0.0)
    refractory = 0
    for b in range(begin, end):
        key0, key1, event0, c, r = keys[b, 0], keys[b, 1], offsets[b], chip[b], row[b]
        _sort_by_step(times[event0 : offsets[b + 1]], steps, first, cursor, order)
        if s.gap < 0 or b == begin:
            current[:], held[:], sent[:] = 0, -1, 0
            v[:] = rows.start[r]
            refractory = 0
        elif s.clamped >= 0:
            current *= f32(s.clamped)
            held[:], sent[:] = -1, 0
            v[:] = p.reset[c]
            refractory = 0
        before[:] = v
        spikes = 0
        threshold, rest, mem, reset = rows.threshold[r], rows.rest[r], p.mem[c], p.reset[c]
        for k in range(steps):
            if k % s.per_sample == 0 and k < recorded:
                i = k // s.per_sample
                _read_cadc(v, before, i, key0, key1, p, c, s, slope, words, codes[b, i])
            _deliver_external(k, event0, units, times, order, first, external[c], p, current)
            _deliver_internal(k, sender, share, sent, internal[c], p, current)
            slope[:] = rest
            _synapses(current, p, c, saturation, inverse, slope)
            if s.noisy:
                if k % 2 == 0:
                    _words(STREAM_MEMBRANE, k // 2, key0, key1, words)
                    _membrane_noise(words, p.table, p.noise[c], even, odd)
                _add(slope, even if k % 2 == 0 else odd)
            _membrane(v, before, slope, mem, f32(s.low), f32(s.high))
            refractory = _hold_reset(v, before, held, reset, resting, refractory)
            if _count_above(v, threshold) > 0:
                refractory, spikes = _fire(
                    k, key0, key1, v, before, held, threshold, resting, refractory, spikes,
                    sender, share, sent, p, c, s, who[b], when[b],
                )  # fmt: skip
        counts[b] = spikes


def as_float32(values: Any) -> Float:
    """Return a contiguous float32 array (what the compiled loops expect)."""
    return np.ascontiguousarray(values, dtype=f32)
