r"""Exact gradients of spike times from measured events alone: the adjoint of current-based LIF neurons.

Between its resets a membrane U (leak 0, threshold 1) follows the events j with weights w_j at times t_j::

    dI/dt = -I / tau_syn,    I += w_j at t_j          dU/dt = -U / tau_mem + drive I

A spike at t, where U = 1, resets U to r and holds it for the refractory period. By the implicit function theorem the
time moves by dt = -dU / slope with slope = drive I(t) - 1 / tau_mem. So a gradient dL/dt of the spike is one of the
membrane, p = dL/dU, and of the current, q = dL/dI, which run backwards (EventProp; Wunderlich and Pehle, Scientific
Reports 11, 2021)::

    from spike to spike    dp/dt = p / tau_mem                  dq/dt = q / tau_syn - drive p
    at an event j          dL/dw_j += q                         dL/dt_j = w_j (q / tau_syn - drive p)
    at a release t'        dL/dt -= p (drive I(t') - r / tau_mem),  p = 0
    at a spike             p = -(dL/dt) / slope

A release is the end of the refractory period that follows a spike; dL/dt of that spike then holds the effect of its
reset on all later ones. A trace sample adds its gradient to p, so that readouts need no other loop. Times are the
measured ones; currents and slopes are the model's. For tau_mem = tau_syn and tau_mem = 2 tau_syn, spike times have a
closed form (Göltz et al., Nature Machine Intelligence 3, 2021), and the adjoint is its derivative; here the ratio is
free. `drive = (1 / tau_syn - 1 / tau_mem) / (beta - alpha)` gives an event the same potential as on the time grid, at
every step (`neurons/psp.py`).

In the loop, the model's slope at a measured spike may be small, or negative. A spike whose slope is below a floor is
divided by the floor instead: its gradient is bounded, and keeps its sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hxtrain.backends import Spikes
from hxtrain.neurons import decay
from hxtrain.neurons.threads import edges_of, run_shares

from .spike_time_kernel import Constants, Events, Results, Seeds, Synapses, adjoint, currents, order

BLOCKS = 8
"""Parts of a batch whose gradients are summed apart, so that the sum does not depend on the number of threads."""
EQUAL = 1e-6
"""Relative difference of time constants below which they count as equal."""


def constants(tau_mem: float, tau_syn: float, dt: float, refractory: float = 0.0, reset: float = 0.0) -> Constants:
    """Return the constants of a layer whose potentials equal those of the time grid at every step.

    Args:
        tau_mem: Time constant of the membranes (s).
        tau_syn: Time constant of the synaptic currents (s).
        dt: Width of a time step (s).
        refractory: Refractory period (s).
        reset: Membrane after a spike; leak 0, threshold 1.
    """
    alpha = decay(dt, tau_syn)
    beta = decay(dt, tau_mem)
    is_equal = abs(tau_mem / tau_syn - 1) < EQUAL
    drive = 1 / (dt * beta) if is_equal else (1 / tau_syn - 1 / tau_mem) / (beta - alpha)
    return Constants(tau_mem, tau_syn, drive, refractory, reset)


class Guard(NamedTuple):
    """What divides the gradient of a spike.

    Attributes:
        floor: Smallest slope (threshold / tau_mem); smaller ones are replaced.
        is_measured: Whether the slope is that of the last two trace samples before the spike, where there are two
            since the last reset, instead of the model's.
    """

    floor: float = 0.3
    is_measured: bool = False


class Population(NamedTuple):
    """A layer as measured, for the gradient.

    Attributes:
        constants: Constants of the layer.
        spikes: Measured spikes within the window; None for a readout.
        shape: T, B, N.
        trace: Membranes `[T, B, N]`, of a readout or for measured slopes; None if they are not needed.
    """

    constants: Constants
    spikes: Spikes | None
    shape: tuple[int, int, int]
    trace: Tensor | None = None


class LayerTimes(NamedTuple):
    """A layer in the graph of the weights.

    Attributes:
        spikes: Spikes in order of sample and time, with times in the graph; None for a readout.
        counts: Tensor that represents the numbers of spikes `[B, N]` in the graph; None for a readout.
        trace: Membranes `[T, B, N]` in the graph; None for a layer that spikes.
        guarded: Number of spikes whose slope was below the floor.
    """

    spikes: Spikes | None
    counts: Tensor | None
    trace: Tensor | None
    guarded: int = 0


def in_order(spikes: Spikes, end: float = math.inf) -> Spikes:
    """Return the events before a time, by sample and ascending in time."""
    numbers = np.empty(len(spikes), np.int64)
    times = spikes.time.detach().cpu().contiguous().numpy()
    count = order(spikes.offsets().cpu().numpy(), times, end, numbers)
    chosen = torch.from_numpy(numbers[:count]).to(spikes.time.device)
    return Spikes.trusted(spikes.sample[chosen], spikes.unit[chosen], spikes.time[chosen], spikes.samples, spikes.units)


def first_of_each(spikes: Spikes) -> Spikes:
    """Return the first spike of each neuron in each sample; the spikes are in order of sample and time."""
    neuron = spikes.sample * spikes.units + spikes.unit
    index = torch.arange(len(neuron), device=neuron.device)
    first = torch.full((spikes.samples * spikes.units,), len(neuron), device=neuron.device)
    first.scatter_reduce_(0, neuron, index, "amin")
    chosen = torch.sort(first[first < len(neuron)]).values
    return Spikes.trusted(spikes.sample[chosen], spikes.unit[chosen], spikes.time[chosen], spikes.samples, spikes.units)


def first_times(spikes: Spikes, end: float) -> Tensor:
    """Return the time of the first spike of each neuron `[B, N]` (s), in the graph of the times.

    Args:
        spikes: Spikes of a layer.
        end: Time for a neuron without a spike, the end of the window (s).
    """
    firsts = first_of_each(in_order(spikes))
    times = firsts.time.new_full((spikes.samples * spikes.units,), end)
    times = times.index_put((firsts.sample * spikes.units + firsts.unit,), firsts.time)
    return times.view(spikes.samples, spikes.units)


def spike_time_layers(
    weights: Sequence[tuple[Tensor, Tensor | None]],
    inputs: Spikes,
    populations: Sequence[Population],
    dt: float,
    guard: Guard = Guard(),  # noqa: B008 - immutable
) -> list[LayerTimes]:
    """Put measured spike times, and the membranes of a readout, into the graph of weights and input times.

    Args:
        weights: Float weights `[N, J]` of each layer, and its recurrent weights `[N, N]`, if any.
        inputs: Input events, in order of sample and time; times in a graph get a gradient.
        populations: Measured layers, from the input to the output; spikes in order of sample and time.
        dt: Time between trace samples (s).
        guard: What divides the gradient of a spike.
    """
    layers: list[_Layer] = []
    upstream = inputs
    for (weight, recurrent), population in zip(weights, populations, strict=True):
        layers.append(_layer(weight, recurrent, upstream, population, dt, guard))
        upstream = upstream if population.spikes is None else population.spikes
    flat = [weight for pair in weights for weight in pair]
    results = _SpikeTimes.apply(layers, inputs.time, *flat)  # type: ignore[no-untyped-call]
    return [_in_graph(layer, *results[2 * i : 2 * i + 2]) for i, layer in enumerate(layers)]


@dataclass
class _Layer:
    """A layer for the loops.

    Attributes:
        population: The layer as measured.
        upstream: Input events of the layer.
        spikes: Spikes of the layer; no events for a readout.
        slopes: Slope at each spike after the guard (1 / s) `[S]`.
        releases: Slope at the end of each refractory period (1 / s) `[S]`.
        guarded: Number of spikes whose slope was replaced.
        dt: Time between trace samples (s).
    """

    population: Population
    upstream: Events
    spikes: Events
    slopes: np.ndarray[Any, Any]
    releases: np.ndarray[Any, Any]
    guarded: int
    dt: float


def _layer(
    weight: Tensor, recurrent: Tensor | None, upstream: Spikes, population: Population, dt: float, guard: Guard
) -> _Layer:
    """Return a layer for the loops, with the slopes of its membranes; the arguments are as in `spike_time_layers`."""
    neurons, sources = weight.shape
    if upstream.units != sources or population.shape[2] != neurons:
        raise ValueError(
            f"weights are {list(weight.shape)}, but the layer has {population.shape[2]} neurons behind "
            f"{upstream.units} units; sizes must match"
        )
    spikes = _events(population.spikes, upstream.samples)
    at_spikes = np.empty(len(spikes.times))
    at_releases = np.empty(len(spikes.times))
    events = _events(upstream, upstream.samples)
    fixed = population.constants
    if len(spikes.times):
        arguments = (events, _synapses(weight, recurrent), spikes, fixed, at_spikes, at_releases)
        edges = edges_of(upstream.samples, (len(events.times) + len(spikes.times)) * neurons)
        run_shares(lambda part, begin, end: currents(begin, end, *arguments), edges)
    slopes = fixed.drive * at_spikes - 1 / fixed.tau_mem
    if guard.is_measured and population.spikes is not None and population.trace is not None:
        slopes = _measured_slopes(population.spikes, population.trace, dt, fixed.refractory, slopes)
    floor = guard.floor / fixed.tau_mem
    is_guarded = ~(slopes >= floor)
    slopes = np.where(is_guarded, floor, slopes)
    releases = fixed.drive * at_releases - fixed.reset / fixed.tau_mem
    return _Layer(population, events, spikes, slopes, releases, int(is_guarded.sum()), dt)


def _events(spikes: Spikes | None, samples: int) -> Events:
    """Return spikes for the loops; None stands for no spikes."""
    if spikes is None:
        return Events(np.zeros(samples + 1, np.int64), np.empty(0, np.int64), np.empty(0))
    time = spikes.time.detach().cpu().double().numpy()
    return Events(spikes.offsets().cpu().numpy(), spikes.unit.cpu().contiguous().numpy(), time)


def _synapses(weight: Tensor, recurrent: Tensor | None) -> Synapses:
    """Return weights for the loops."""
    none = weight.new_empty(0, 0) if recurrent is None else recurrent
    return Synapses(*(w.detach().cpu().t().contiguous().numpy() for w in (weight, none)))


def _measured_slopes(
    spikes: Spikes, trace: Tensor, dt: float, refractory: float, model: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the slope of the last two trace samples before each spike `[S]` (1 / s).

    Where the neuron has been reset since the first of them, or where there is none, the slope is the model's.
    """
    time = spikes.time.detach().double()
    last = spikes.bins(dt).clamp(max=len(trace) - 1)
    neuron = spikes.sample * spikes.units + spikes.unit
    order = torch.argsort(neuron, stable=True)
    released = torch.full_like(time, -math.inf)
    is_same = neuron[order][1:] == neuron[order][:-1]
    released[order[1:][is_same]] = time[order[:-1][is_same]] + refractory
    has_two = (last >= 1) & (released <= (last - 1) * dt)
    rise = trace[last, spikes.sample, spikes.unit] - trace[(last - 1).clamp(min=0), spikes.sample, spikes.unit]
    return np.where(has_two.cpu().numpy(), (rise.detach().double() / dt).cpu().numpy(), model)


class _SpikeTimes(torch.autograd.Function):
    """Measured layers: (input times, weight, recurrent weight, ...) -> (spike times or membranes, counts, ...)."""

    @staticmethod
    def forward(
        ctx: Any, layers: Sequence[_Layer], input_times: Tensor, *weights: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.layers = layers
        ctx.save_for_backward(*weights)
        ctx.set_materialize_grads(False)
        ctx.times = input_times.new_empty(0)
        like = weights[0]
        assert like is not None
        results: list[Tensor | None] = []
        for layer in layers:
            spikes = layer.population.spikes
            if spikes is None:
                assert layer.population.trace is not None
                results += [layer.population.trace.view_as(layer.population.trace), None]
            else:
                results += [spikes.time.detach().clone(), like.new_empty(()).expand(layer.population.shape[1:])]
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        weights = ctx.saved_tensors
        grad_weights: list[Tensor | None] = [None] * len(weights)
        downstream: np.ndarray[Any, Any] | None = None
        for i, layer in reversed([*enumerate(ctx.layers)]):
            seed, counts = grads[2 * i : 2 * i + 2]
            if downstream is None and seed is None and counts is None:
                continue
            weight, recurrent = weights[2 * i : 2 * i + 2]
            needs_times = i > 0 or ctx.needs_input_grad[1]
            results = _gradients(layer, weight, recurrent, seed, downstream, needs_times)
            grad_weights[2 * i] = _summed(results.forward, weight)
            grad_weights[2 * i + 1] = None if recurrent is None else _summed(results.recurrent, recurrent)
            if counts is not None:
                grad_weights[2 * i] = grad_weights[2 * i] + _by_counts(layer, layer.upstream, weight, counts)
                if recurrent is not None:
                    grad_weights[2 * i + 1] = grad_weights[2 * i + 1] + _by_counts(
                        layer, layer.spikes, recurrent, counts
                    )
            downstream = results.times
        needs_times = ctx.needs_input_grad[1] and downstream is not None
        grad_times = torch.from_numpy(downstream).to(ctx.times) if needs_times else None
        return None, grad_times, *grad_weights


def _summed(blocks: np.ndarray[Any, Any], weight: Tensor) -> Tensor:
    """Return the gradient of weights `[N, J]` as the sum of those of all blocks `[blocks, J, N]`."""
    return torch.from_numpy(blocks).sum(0).t().contiguous().to(weight)


def _gradients(
    layer: _Layer,
    weight: Tensor,
    recurrent: Tensor | None,
    seed: Tensor | None,
    downstream: np.ndarray[Any, Any] | None,
    needs_times: bool,
) -> Results:
    """Return the gradients of a layer.

    Args:
        layer: The layer.
        weight: Weights `[N, J]`.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
        seed: Gradient of the spike times `[S]`, or of the membranes `[T, B, N]` of a readout; None for none.
        downstream: Gradient of the spike times through the downstream layer `[S]`; None without one.
        needs_times: Whether the gradient of the input times is requested.
    """
    population = layer.population
    samples = population.shape[1]
    number = weight.detach().cpu().numpy().dtype
    synapses = _synapses(weight, recurrent)
    blocks = max(1, min(BLOCKS, samples))
    is_readout = population.spikes is None
    times = np.zeros(len(layer.spikes.times))
    if downstream is not None and not is_readout:
        times += downstream
    traces = np.empty((0, 0, 0), number)
    if seed is not None and is_readout:
        traces = seed.detach().cpu().contiguous().numpy().astype(number, copy=False)
    elif seed is not None:
        times += seed.detach().cpu().double().numpy()
    seeds = Seeds(times, layer.slopes, layer.releases, traces, layer.dt)
    results = Results(
        np.zeros((blocks, *synapses.forward.shape), number),
        np.zeros((blocks, *synapses.recurrent.shape), number),
        np.zeros(len(layer.upstream.times) if needs_times else 0),
    )
    edges = edges_of(blocks, len(layer.upstream.times) * population.shape[2])
    run_shares(
        lambda part, begin, end: adjoint(
            begin, end, blocks, layer.upstream, synapses, layer.spikes, population.constants, seeds, results
        ),
        edges,
    )
    return results


def _by_counts(layer: _Layer, events: Events, weight: Tensor, counts: Tensor) -> Tensor:
    """Return the gradient of weights `[N, J]` through numbers of spikes.

    An event adds its weight times the charge of a unit weight to the number of spikes, as in a neuron without leak.

    Args:
        layer: The layer.
        events: Events that arrive over these weights.
        weight: Weights `[N, J]`.
        counts: Gradient of the numbers of spikes `[B, N]`.
    """
    samples = len(events.offsets) - 1
    sources = weight.shape[1]
    sample = np.repeat(np.arange(samples), np.diff(events.offsets))
    numbers = np.bincount(sample * sources + events.units, minlength=samples * sources).reshape(samples, sources)
    fixed = layer.population.constants
    arrived = torch.from_numpy(numbers).to(counts)
    return fixed.drive * fixed.tau_syn * (counts.t() @ arrived)


def _in_graph(layer: _Layer, values: Tensor, counts: Tensor | None) -> LayerTimes:
    """Return a layer in the graph, from the results of `_SpikeTimes` for it."""
    spikes = layer.population.spikes
    if spikes is None:
        return LayerTimes(None, None, values)
    timed = Spikes.trusted(spikes.sample, spikes.unit, values, spikes.samples, spikes.units)
    return LayerTimes(timed, counts, None, layer.guarded)
