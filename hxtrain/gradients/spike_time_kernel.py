"""Loops of the spike-time gradient over event lists, compiled for the CPU with numba (decision 0008).

`spike_times.py` has the equations. Shape letters: `B` samples, `J` sources, `N` neurons, `T` trace samples, `E` input
events, `S` spikes of the layer. Events are grouped by sample and ascend in time. Of simultaneous events, spikes come
first, then the ends of refractory periods, trace samples, and arrivals: an event acts only on what is later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hxtrain.neurons.jit import Float, Int, compiled, uptr

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
        charges: Gradient of the charge of each neuron, from its number of spikes `[B, N]`.
        dt: Time between trace samples (s).
    """

    times: Times
    slopes: Times
    releases: Times
    traces: Float
    charges: Float
    dt: float


class Results(NamedTuple):
    """Where gradients are written.

    Attributes:
        forward: Gradient of the forward weights, one sum per block of samples `[blocks, J, N]`.
        recurrent: Gradient of the recurrent weights, likewise `[blocks, N, N]`; empty without recurrence.
        times: Gradient of the times of the input events `[E]`.
    """

    forward: Float
    recurrent: Float
    times: Times


@compiled
def _time(events, event, end, delay):
    """Return the time of an event plus a delay; `NEVER` after the last one."""
    return events.times[event] + delay if event < end else NEVER


@compiled
def _arrive(current, now, time, tau_syn, weights):
    """Let the current decay until an arrival, and add its weights."""
    decay = current.dtype.type(np.exp((now - time) / tau_syn))
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
        now = 0.0
        while r < s_end:
            t_spike = _time(spikes, s, s_end, 0.0)
            t_release = _time(spikes, r, s_end, constants.refractory)
            t_recurrent = _time(spikes, a, a_end, 0.0)
            t_input = _time(inputs, i, i_end, 0.0)
            arrival = min(t_recurrent, t_input)
            if t_spike <= t_release and t_spike <= arrival:
                at_spikes[s] = current[spikes.units[s]] * np.exp((now - t_spike) / constants.tau_syn)
                s += 1
            elif t_release <= arrival:
                at_releases[r] = current[spikes.units[r]] * np.exp((now - t_release) / constants.tau_syn)
                r += 1
            elif t_recurrent <= t_input:
                _arrive(current, now, t_recurrent, constants.tau_syn, synapses.recurrent[spikes.units[a]])
                now = t_recurrent
                a += 1
            else:
                _arrive(current, now, t_input, constants.tau_syn, synapses.forward[inputs.units[i]])
                now = t_input
                i += 1


@compiled
def _advance(p, q, elapsed, constants):
    """Move the gradients of membranes and currents back in time."""
    by_syn = np.exp(-elapsed / constants.tau_syn)
    by_mem = np.exp(-elapsed / constants.tau_mem)
    rate = 1 / constants.tau_syn - 1 / constants.tau_mem
    if abs(rate) * elapsed < 1e-6:
        response = elapsed * by_mem
    else:
        response = (by_mem - by_syn) / rate
    decay_p = p.dtype.type(by_mem)
    decay_q = p.dtype.type(by_syn)
    gain = p.dtype.type(constants.drive * response)
    for n in range(uptr(p.shape[0])):
        q[n] = q[n] * decay_q + p[n] * gain
        p[n] *= decay_p


@compiled
def _arrival(p, q, weights, charges, gradient, constants):
    """Add the gradient of an arrival's weights, and return that of its time."""
    leak = p.dtype.type(1 / constants.tau_syn)
    drive = p.dtype.type(constants.drive)
    total = p.dtype.type(0)
    for n in range(uptr(p.shape[0])):
        gradient[n] += q[n] + charges[n]
        total += weights[n] * (q[n] * leak - p[n] * drive)
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
    no_charges = np.zeros(neurons, synapses.forward.dtype)
    for block in range(begin, end):
        for b in range(samples * block // blocks, samples * (block + 1) // blocks):
            charges = seeds.charges[b] if seeds.charges.shape[0] else no_charges
            _adjoint(b, block, p, q, charges, inputs, synapses, spikes, constants, seeds, results)


@compiled
def _adjoint(b, block, p, q, charges, inputs, synapses, spikes, constants, seeds, results):
    """Write the gradients of one sample, see `adjoint`.

    `p` and `q` are the gradients of the membranes and of the currents `[N]`.
    """
    has_recurrence = synapses.recurrent.shape[0] > 0
    i_end = inputs.offsets[b]
    s_end = spikes.offsets[b]
    i = inputs.offsets[b + 1] - 1
    s = spikes.offsets[b + 1] - 1
    r = s
    a = s if has_recurrence else s_end - 1
    k = seeds.traces.shape[0] - 1
    p[:] = 0
    q[:] = 0
    now = NEVER
    while i >= i_end or s >= s_end:
        t_input = inputs.times[i] if i >= i_end else -NEVER
        t_recurrent = spikes.times[a] if a >= s_end else -NEVER
        t_release = spikes.times[r] + constants.refractory if r >= s_end else -NEVER
        t_spike = spikes.times[s] if s >= s_end else -NEVER
        t_trace = k * seeds.dt if k >= 0 else -NEVER
        time = max(t_input, t_recurrent, t_release, t_spike, t_trace)
        if now != NEVER:
            _advance(p, q, now - time, constants)
        now = time
        if t_input == time:
            row = inputs.units[i]
            gradient = results.forward[block, row]
            results.times[i] = _arrival(p, q, synapses.forward[row], charges, gradient, constants)
            i -= 1
        elif t_recurrent == time:
            row = spikes.units[a]
            gradient = results.recurrent[block, row]
            seeds.times[a] += _arrival(p, q, synapses.recurrent[row], charges, gradient, constants)
            a -= 1
        elif t_trace == time:
            for n in range(uptr(p.shape[0])):
                p[n] += seeds.traces[k, b, n]
            k -= 1
        elif t_release == time:
            unit = spikes.units[r]
            seeds.times[r] -= p[unit] * seeds.releases[r]
            p[unit] = 0
            r -= 1
        else:
            p[spikes.units[s]] = -seeds.times[s] / seeds.slopes[s]
            s -= 1
