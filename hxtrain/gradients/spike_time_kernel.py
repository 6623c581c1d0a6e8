"""Loops of the spike-time gradient over event lists, compiled for the CPU with numba (decision 0008).

`spike_times.py` has the equations. Shape letters: `B` samples, `J` sources, `N` neurons, `T` trace samples, `E` input
events, `S` spikes of the layer. Events are grouped by sample and ascend in time. Of simultaneous events, spikes come
first, then the ends of refractory periods, trace samples, and arrivals: an event acts only on what is later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, compiled, exact, uptr

Times = npt.NDArray[np.float64]
NEVER = np.inf


class Events(NamedTuple):
    """Events of all samples, grouped by sample, ascending in time.

    Attributes:
        offsets: First event of each sample, and the number of events, int64 `[B + 1]`.
        units: Source of each event, int64 `[E]`.
        times: Time of each event (s) `[E]`.
    """

    offsets: Int
    units: Int
    times: Times


class Constants(NamedTuple):
    """Constants of a layer.

    Attributes:
        tau_mem: Time constant of the membranes (s).
        tau_syn: Time constant of the synaptic currents (s).
        drive: Slope of a membrane at rest per unit of current (1 / s).
        refractory: Time for which the membrane is held at its reset (s).
        reset: Membrane after a spike; leak 0, threshold 1.
    """

    tau_mem: float
    tau_syn: float
    drive: float
    refractory: float
    reset: float


class Synapses(NamedTuple):
    """Weights of a layer by source.

    Attributes:
        forward: Weights of the input events, `[J, N]`.
        recurrent: Weights of the layer's own spikes, `[N, N]`; empty without recurrence.
    """

    forward: Float
    recurrent: Float


class Seeds(NamedTuple):
    """Gradients of the loss with respect to what a layer did; empty arrays for none.

    Attributes:
        times: Gradient of the spike times `[S]`; the loops add the gradients through later spikes.
        slopes: Slope of the membrane at each spike, which divides its gradient (1 / s) `[S]`.
        releases: Slope of the membrane after each refractory period (1 / s) `[S]`.
        traces: Gradient of the membranes `[T, B, N]`.
        dt: Time between trace samples (s).
    """

    times: Times
    slopes: Times
    releases: Times
    traces: Float
    dt: float


class Results(NamedTuple):
    """Where gradients are written.

    Attributes:
        forward: Gradient of the forward weights, one sum per block of samples `[blocks, J, N]`.
        recurrent: Gradient of the recurrent weights, likewise `[blocks, N, N]`; empty without recurrence.
        times: Gradient of the times of the input events `[E]`; empty if it is not requested.
    """

    forward: Float
    recurrent: Float
    times: Times


@exact
def _ascends(times, first, last):
    ascends = True
    for event in range(first + 1, last):
        ascends &= times[event - 1] <= times[event]
    return ascends


@exact
def order(offsets: Int, times: npt.NDArray[np.floating[Any]], end: float, numbers: Int) -> int:
    """Write the numbers of the events before a time, by sample and ascending in time; returns how many there are.

    Args:
        offsets: First event of each sample, and the number of events, int64 `[B + 1]`.
        times: Time of each event `[E]`.
        end: Time from which events are left out.
        numbers: Numbers of the events `[E]` (out).
    """
    count = 0
    for b in range(offsets.shape[0] - 1):
        first = offsets[b]
        if _ascends(times, first, offsets[b + 1]):
            for event in range(first, offsets[b + 1]):
                if times[event] < end:
                    numbers[count] = event
                    count += 1
            continue
        ranks = np.argsort(times[first : offsets[b + 1]], kind="mergesort")
        for rank in ranks:
            if times[first + rank] < end:
                numbers[count] = first + rank
                count += 1
    return count


@compiled
def _time(events, event, end, delay):
    """Return the time of an event plus a delay; `NEVER` after the last one."""
    return events.times[event] + delay if event < end else NEVER


@compiled
def _arrive(current, base, time, tau_syn, weights):
    """Let the current decay until an arrival, and add its weights."""
    decay = current.dtype.type(np.exp((base - time) / tau_syn))
    for n in range(uptr(current.shape[0])):
        current[n] = current[n] * decay + weights[n]


@compiled
def currents(
    begin: int,
    end: int,
    inputs: Events,
    synapses: Synapses,
    spikes: Events,
    constants: Constants,
    at_spikes: Times,
    at_releases: Times,
) -> None:
    """Write the synaptic current of each neuron at each of its spikes and after each refractory period.

    Args:
        begin: First sample.
        end: End of the samples.
        inputs: Input events.
        synapses: Weights of the layer.
        spikes: Measured spikes of the layer.
        constants: Constants of the layer.
        at_spikes: Current just before each spike `[S]` (out).
        at_releases: Current at the end of the refractory period that follows each spike `[S]` (out).
    """
    has_recurrence = synapses.recurrent.shape[0] > 0
    current = np.empty(synapses.forward.shape[1], synapses.forward.dtype)
    for b in range(begin, end):
        i = inputs.offsets[b]
        s = spikes.offsets[b]
        r = s
        a = s
        i_end = inputs.offsets[b + 1]
        s_end = spikes.offsets[b + 1]
        a_end = s_end if has_recurrence else a
        current[:] = 0
        base = 0.0
        while r < s_end:
            t_spike = _time(spikes, s, s_end, 0.0)
            t_release = _time(spikes, r, s_end, constants.refractory)
            t_recurrent = _time(spikes, a, a_end, 0.0)
            t_input = _time(inputs, i, i_end, 0.0)
            arrival = min(t_recurrent, t_input)
            if t_spike <= t_release and t_spike <= arrival:
                at_spikes[s] = current[spikes.units[s]] * np.exp((base - t_spike) / constants.tau_syn)
                s += 1
            elif t_release <= arrival:
                at_releases[r] = current[spikes.units[r]] * np.exp((base - t_release) / constants.tau_syn)
                r += 1
            elif t_recurrent <= t_input:
                _arrive(current, base, t_recurrent, constants.tau_syn, synapses.recurrent[spikes.units[a]])
                base = t_recurrent
                a += 1
            else:
                _arrive(current, base, t_input, constants.tau_syn, synapses.forward[inputs.units[i]])
                base = t_input
                i += 1


@compiled
def _response(elapsed, constants):
    """Return how membranes and currents decay in a time, and the membrane that a current of 1 causes in it."""
    by_syn = np.exp(-elapsed / constants.tau_syn)
    by_mem = np.exp(-elapsed / constants.tau_mem)
    rate = 1 / constants.tau_syn - 1 / constants.tau_mem
    if abs(rate) * elapsed < 1e-6:
        return by_mem, by_syn, constants.drive * elapsed * by_mem
    return by_mem, by_syn, constants.drive * (by_mem - by_syn) / rate


@compiled
def _rebase(p, q, elapsed, constants):
    """Move the time at which `p` and `q` hold back by a time."""
    by_mem, by_syn, response = _response(elapsed, constants)
    decay_p = p.dtype.type(by_mem)
    decay_q = p.dtype.type(by_syn)
    gain = p.dtype.type(response)
    for n in range(uptr(p.shape[0])):
        q[n] = q[n] * decay_q + p[n] * gain
        p[n] *= decay_p


@compiled
def _inject(p, q, n, value, elapsed, constants):
    """Set the gradient of the membrane of neuron `n` a time before `p` and `q` hold; that of its current is kept."""
    by_mem, by_syn, response = _response(elapsed, constants)
    previous = p[n]
    p[n] = value / by_mem
    q[n] += (previous - p[n]) * response / by_syn


@compiled
def _weigh(p, q, elapsed, gradient, constants):
    """Add the gradient of the weights of an arrival, a time before `p` and `q` hold."""
    _, by_syn, response = _response(elapsed, constants)
    of_q = p.dtype.type(by_syn)
    of_p = p.dtype.type(response)
    for n in range(uptr(p.shape[0])):
        gradient[n] += of_q * q[n] + of_p * p[n]


@compiled
def _shift(p, q, elapsed, weights, constants):
    """Return the gradient of the time of an arrival, a time before `p` and `q` hold."""
    by_mem, by_syn, response = _response(elapsed, constants)
    of_q = p.dtype.type(by_syn / constants.tau_syn)
    of_p = p.dtype.type(response / constants.tau_syn - by_mem * constants.drive)
    total = p.dtype.type(0)
    for n in range(uptr(p.shape[0])):
        total += weights[n] * (of_q * q[n] + of_p * p[n])
    return total


@compiled
def adjoint(
    begin: int,
    end: int,
    blocks: int,
    inputs: Events,
    synapses: Synapses,
    spikes: Events,
    constants: Constants,
    seeds: Seeds,
    results: Results,
) -> None:
    """Write the gradients of weights and input times for blocks of samples, from the last event to the first.

    Args:
        begin: First block.
        end: End of the blocks.
        blocks: Number of blocks of the batch.
        inputs: Input events.
        synapses: Weights of the layer.
        spikes: Measured spikes of the layer; none for a readout.
        constants: Constants of the layer.
        seeds: Gradients of what the layer did.
        results: Gradients of the layer (out).
    """
    samples = inputs.offsets.shape[0] - 1
    neurons = synapses.forward.shape[1]
    p = np.empty(neurons, synapses.forward.dtype)
    q = np.empty(neurons, synapses.forward.dtype)
    for block in range(begin, end):
        for b in range(samples * block // blocks, samples * (block + 1) // blocks):
            _adjoint(b, block, p, q, inputs, synapses, spikes, constants, seeds, results)


@compiled
def _adjoint(b, block, p, q, inputs, synapses, spikes, constants, seeds, results):
    """Write the gradients of one sample, see `adjoint`.

    `p` and `q` are the gradients of the membranes and of the currents `[N]`. They hold at the time `base`, and follow
    for any earlier time from there, so that a spike changes those of its neuron alone. The base moves before the time
    since it would cost precision.
    """
    has_recurrence = synapses.recurrent.shape[0] > 0
    has_times = results.times.shape[0] > 0
    longest = 4 * min(constants.tau_mem, constants.tau_syn)
    i_end = inputs.offsets[b]
    s_end = spikes.offsets[b]
    i = inputs.offsets[b + 1] - 1
    s = spikes.offsets[b + 1] - 1
    r = s
    a = s if has_recurrence else s_end - 1
    k = seeds.traces.shape[0] - 1
    p[:] = 0
    q[:] = 0
    base = NEVER
    is_zero = True
    while i >= i_end or s >= s_end:
        t_input = inputs.times[i] if i >= i_end else -NEVER
        t_recurrent = spikes.times[a] if a >= s_end else -NEVER
        t_release = spikes.times[r] + constants.refractory if r >= s_end else -NEVER
        t_spike = spikes.times[s] if s >= s_end else -NEVER
        t_trace = k * seeds.dt if k >= 0 else -NEVER
        time = max(t_input, t_recurrent, t_release, t_spike, t_trace)
        if is_zero:
            base = time
        elif base - time > longest:
            _rebase(p, q, base - time, constants)
            base = time
        if t_input == time:
            row = inputs.units[i]
            if not is_zero:
                _weigh(p, q, base - time, results.forward[block, row], constants)
                if has_times:
                    results.times[i] = _shift(p, q, base - time, synapses.forward[row], constants)
            i -= 1
        elif t_recurrent == time:
            row = spikes.units[a]
            if not is_zero:
                _weigh(p, q, base - time, results.recurrent[block, row], constants)
                seeds.times[a] += _shift(p, q, base - time, synapses.recurrent[row], constants)
            a -= 1
        elif t_trace == time:
            if base != time:
                _rebase(p, q, base - time, constants)
                base = time
            for n in range(uptr(p.shape[0])):
                p[n] += seeds.traces[k, b, n]
            is_zero = False
            k -= 1
        elif t_release == time:
            n = spikes.units[r]
            by_mem, _, _ = _response(base - time, constants)
            seeds.times[r] -= p[n] * by_mem * seeds.releases[r]
            _inject(p, q, n, 0.0, base - time, constants)
            r -= 1
        else:
            is_zero &= seeds.times[s] == 0
            _inject(p, q, spikes.units[s], -seeds.times[s] / seeds.slopes[s], base - time, constants)
            s -= 1
