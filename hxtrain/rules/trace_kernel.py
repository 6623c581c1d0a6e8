"""Loops over the events of each sample that sum correlations, compiled for the CPU with numba (decision 0008).

Shape letters: `B` samples, `J` inputs, `N` outputs, `E` events. Events of a sample are sorted by time; those of sample
b are `offsets[b]:offsets[b + 1]`. Only neurons that have fired in a sample have traces: silent ones cost nothing.
"""

from __future__ import annotations

import numpy as np

from hxtrain.neurons.events import SortedEvents
from hxtrain.neurons.jit import Float, compiled


@compiled
def _end(time, first, last, t):
    """Return the first event from `first` on that is later than t."""
    while first < last and time[first] == t:
        first += 1
    return first


@compiled
def _next_time(pre_time, p, p_end, post_time, q, q_end):
    """Return the time of the next event of both lists."""
    if p < p_end and q < q_end:
        return min(pre_time[p], post_time[q])
    return pre_time[p] if p < p_end else post_time[q]


@compiled
def _decay(traces, second, units, number, factor, second_factor):
    for k in range(number):
        traces[units[k]] *= factor
        second[units[k]] *= second_factor


@compiled
def _enter(traces, second, units, number, is_active, unit, nearest, jump, second_jump):
    """Let a spike enter its traces; returns the number of neurons with traces."""
    if not is_active[unit]:
        is_active[unit] = True
        units[number] = unit
        number += 1
    traces[unit] = jump if nearest else traces[unit] + jump
    second[unit] = second_jump if nearest else second[unit] + second_jump
    return number


@compiled
def _clear(traces, second, units, number, is_active):
    for k in range(number):
        traces[units[k]] = 0.0
        second[units[k]] = 0.0
        is_active[units[k]] = False


@compiled
def trace_sums(
    pre: SortedEvents,
    post: SortedEvents,
    constants: Float,
    nearest: bool,
    separate: bool,
    causal: Float,
    anticausal: Float,
) -> None:
    """Sum correlations by traces, see `hxtrain.rules.traces`.

    Args:
        pre: Input events.
        post: Output events.
        constants: tau_plus, tau_minus, tau_x, tau_y, A2+, A2-, A3+, A3-.
        nearest: Whether a spike sets its traces to 1.
        separate: Whether samples have sums of their own.
        causal: Sums at output events `[B or 1, N, J]`; zeros at the start.
        anticausal: Sums at input events `[B or 1, J, N]`; zeros at the start.
    """
    pre_offsets, pre_unit, pre_time, pre_factor = pre
    post_offsets, post_unit, post_time, post_factor = post
    tau_plus, tau_minus, tau_x, tau_y, a2_plus, a2_minus, a3_plus, a3_minus = constants
    longest = 50 * min(tau_plus, tau_minus, tau_x, tau_y)
    outputs = causal.shape[1]
    inputs = causal.shape[2]
    r1 = np.zeros(inputs)
    r2 = np.zeros(inputs)
    o1 = np.zeros(outputs)
    o2 = np.zeros(outputs)
    has_r = np.zeros(inputs, np.bool_)
    has_o = np.zeros(outputs, np.bool_)
    sources = np.empty(inputs, np.int64)
    targets = np.empty(outputs, np.int64)
    for b in range(pre_offsets.shape[0] - 1):
        row = b if separate else 0
        p = pre_offsets[b]
        q = post_offsets[b]
        p_end = pre_offsets[b + 1]
        q_end = post_offsets[b + 1]
        n_sources = 0
        n_targets = 0
        start = 0.0  # traces are those at this time, which saves their decay at every event
        while p < p_end or q < q_end:
            t = _next_time(pre_time, p, p_end, post_time, q, q_end)
            if t - start > longest:
                _decay(r1, r2, sources, n_sources, np.exp((start - t) / tau_plus), np.exp((start - t) / tau_x))
                _decay(o1, o2, targets, n_targets, np.exp((start - t) / tau_minus), np.exp((start - t) / tau_y))
                start = t
            decay_plus = np.exp((start - t) / tau_plus)
            decay_minus = np.exp((start - t) / tau_minus)
            decay_x = decay_plus if tau_x == tau_plus else np.exp((start - t) / tau_x)
            decay_y = decay_minus if tau_y == tau_minus else np.exp((start - t) / tau_y)
            p_next = _end(pre_time, p, p_end, t)
            q_next = _end(post_time, q, q_end, t)
            for e in range(p, p_next):
                j = pre_unit[e]
                amount = pre_factor[e] * (a2_minus + a3_minus * r2[j] * decay_x) * decay_minus
                for k in range(n_targets):
                    anticausal[row, j, targets[k]] += amount * o1[targets[k]]
            for e in range(q, q_next):
                i = post_unit[e]
                amount = post_factor[e] * (a2_plus + a3_plus * o2[i] * decay_y) * decay_plus
                for k in range(n_sources):
                    causal[row, i, sources[k]] += amount * r1[sources[k]]
            for e in range(p, p_next):
                n_sources = _enter(r1, r2, sources, n_sources, has_r, pre_unit[e], nearest, 1 / decay_plus, 1 / decay_x)
            for e in range(q, q_next):
                n_targets = _enter(
                    o1, o2, targets, n_targets, has_o, post_unit[e], nearest, 1 / decay_minus, 1 / decay_y
                )
            p = p_next
            q = q_next
        _clear(r1, r2, sources, n_sources, has_r)
        _clear(o1, o2, targets, n_targets, has_o)


@compiled
def _note(times, traces, units, number, unit, t, jump):
    """Note the time of a spike, which sets its trace; returns the number of neurons that have fired."""
    if times[unit] == -np.inf:
        units[number] = unit
        number += 1
    times[unit] = t
    traces[unit] = jump
    return number


@compiled
def _shrink(traces, units, number, factor):
    for k in range(number):
        traces[units[k]] *= factor


@compiled
def nearest_sums(
    pre: SortedEvents,
    post: SortedEvents,
    tau_plus: float,
    tau_minus: float,
    reduced: bool,
    separate: bool,
    causal: Float,
    anticausal: Float,
) -> None:
    """Sum correlations of nearest neighbours, of which each synapse has its own.

    Args:
        pre: Input events.
        post: Output events.
        tau_plus: Time constant of causal pairs.
        tau_minus: Time constant of anticausal pairs.
        reduced: Whether neighbours alone count; else the pairing is centred on input spikes.
        separate: Whether samples have sums of their own.
        causal: Sums at output events `[B or 1, N, J]`; zeros at the start.
        anticausal: Sums at input events `[B or 1, J, N]`; zeros at the start.
    """
    pre_offsets, pre_unit, pre_time, pre_factor = pre
    post_offsets, post_unit, post_time, post_factor = post
    outputs = causal.shape[1]
    inputs = causal.shape[2]
    longest = 50 * min(tau_plus, tau_minus)
    r = np.empty(inputs)
    o = np.empty(outputs)
    last_pre = np.full(inputs, -np.inf)
    last_post = np.full(outputs, -np.inf)
    sources = np.empty(inputs, np.int64)
    targets = np.empty(outputs, np.int64)
    unpaired = np.empty(outputs, np.int64)
    for b in range(pre_offsets.shape[0] - 1):
        row = b if separate else 0
        p = pre_offsets[b]
        q = post_offsets[b]
        p_end = pre_offsets[b + 1]
        q_end = post_offsets[b + 1]
        n_sources = 0
        n_targets = 0
        last_pre.fill(-np.inf)
        last_post.fill(-np.inf)
        unpaired.fill(p)
        start = 0.0  # traces are those at this time, as in `trace_sums`
        while p < p_end or q < q_end:
            t = _next_time(pre_time, p, p_end, post_time, q, q_end)
            if t - start > longest:
                _shrink(r, sources, n_sources, np.exp((start - t) / tau_plus))
                _shrink(o, targets, n_targets, np.exp((start - t) / tau_minus))
                start = t
            decay_plus = np.exp((start - t) / tau_plus)
            decay_minus = decay_plus if tau_minus == tau_plus else np.exp((start - t) / tau_minus)
            p_next = _end(pre_time, p, p_end, t)
            q_next = _end(post_time, q, q_end, t)
            for e in range(p, p_next):
                j = pre_unit[e]
                amount = pre_factor[e] * decay_minus
                for k in range(n_targets):
                    if not reduced or last_post[targets[k]] > last_pre[j]:
                        anticausal[row, j, targets[k]] += amount * o[targets[k]]
            for e in range(q, q_next):
                i = post_unit[e]
                if reduced:
                    amount = post_factor[e] * decay_plus
                    for k in range(n_sources):
                        if last_pre[sources[k]] >= last_post[i]:
                            causal[row, i, sources[k]] += amount * r[sources[k]]
                else:
                    for m in range(unpaired[i], p):
                        causal[row, i, pre_unit[m]] += post_factor[e] * np.exp((pre_time[m] - t) / tau_plus)
                    unpaired[i] = p
            for e in range(p, p_next):
                n_sources = _note(last_pre, r, sources, n_sources, pre_unit[e], t, 1 / decay_plus)
            for e in range(q, q_next):
                n_targets = _note(last_post, o, targets, n_targets, post_unit[e], t, 1 / decay_minus)
            p = p_next
            q = q_next
