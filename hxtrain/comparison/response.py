r"""Response of a layer to the spikes that it measurably received, independent of the upstream layers.

Up to its first spike a neuron has no reset, so its membrane is the model's linear response to
its input, `U(t) = sum_e W[:, unit_e] h(t - t_e)`, with the response to one spike::

    h(t) = (exp(-t / tau_mem) - exp(-t / tau_syn)) / (beta - alpha)        t > 0; 1 at t = dt

and `alpha = exp(-dt / tau_syn)`, `beta = exp(-dt / tau_mem)`: at multiples of dt the kernel of `psp_kernel`.
Events act at their exact times. For an event a fraction f of a bin after the start of bin j, and a sample
at the start of bin k > j, ::

    h((k - j - f) dt) = beta^-f h((k - j) dt) - alpha^(k - j) g(f)     g(f) = (alpha^-f - beta^-f) / (beta - alpha)

so the response to all events is two sums over time: one with `psp_kernel`, one with powers of alpha.
Shape letters: `T` time steps, `B` samples, `J` inputs, `N` neurons, `E` events.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.backends.spikes import GRID_TOLERANCE
from hxtrain.neurons import decay, decaying_sum, potential


class Response(NamedTuple):
    """A layer's measured membrane and spikes, relative to the model's response to its measured input.

    The precision of a neuron's values varies: that of gains with `energy`, that of thresholds with `spikes`.

    Attributes:
        gain: slope of the line through the origin of measured over modelled membrane, over all samples that count;
            1 for the model; None if the layer received nothing.
        residual: root mean square of the deviations from this line (threshold - leak).
        threshold: mean of the modelled membrane at the first spikes (threshold - leak), which is the layer's
            threshold over its gain; None without spikes.
        gains: slope of each neuron `[N]`.
        energy: sum of squares of each neuron's modelled membrane `[N]`.
        thresholds: mean of each neuron's modelled membrane at its first spikes `[N]`.
        spikes: number of each neuron's first spikes `[N]`.
    """

    gain: float | None
    residual: float
    threshold: float | None
    gains: Tensor
    energy: Tensor
    thresholds: Tensor
    spikes: Tensor


def linear_response(weight: Tensor, events: Spikes, dt: float, steps: int, tau_mem: float, tau_syn: float) -> Tensor:
    """Return the model's membrane `[T, B, N]` (leak 0, threshold 1) without resets.

    Args:
        weight: weights `[N, J]`; one unit raises the membrane by 1 after `dt`.
        events: spikes of the `J` inputs; spikes after the window are left out.
        dt: time between two samples (s).
        steps: number of samples `T`; sample k is at `k * dt` after the trial's start.
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
    """
    alpha, beta = decay(dt, tau_syn), decay(dt, tau_mem)
    fraction = events.time.double() / dt - events.bins(dt)
    growth = torch.exp(fraction * dt / tau_mem)
    rate = dt * (1 / tau_syn - 1 / tau_mem)
    share = fraction / beta if rate == 0 else torch.expm1(fraction * rate) / (-beta * math.expm1(-rate))
    arrived = _binned(events, growth, dt, steps).to(weight) @ weight.t()
    advanced = _binned(events, growth * share, dt, steps).to(weight) @ weight.t()
    return potential(arrived, alpha, beta) - alpha * decaying_sum(advanced, alpha, 1)


def first_spikes(events: Spikes) -> Tensor:
    """Return the time of each neuron's first spike in each trial (s) `[B, N]`; infinite where it is silent."""
    time = torch.full((events.samples * events.units,), torch.inf, device=events.time.device)
    cell = events.sample * events.units + events.unit
    return time.scatter_reduce_(0, cell, events.time, "amin").view(events.samples, events.units)


def measure_response(modelled: Tensor, trace: Tensor, first: Tensor | None, dt: float) -> Response:
    """Compare a layer with the model that has its measured input.

    Args:
        modelled: `linear_response` to the spikes that the layer received `[T, B, N]`.
        trace: measured membrane `[T, B, N]` (leak 0, threshold 1); sample 0, the leak, does not count.
        first: times of the first spikes `[B, N]` (s); samples from the bin of this spike on do not count. None for
            a readout, whose samples all count.
        dt: time between two samples (s).
    """
    free = torch.ones_like(trace, dtype=torch.bool)
    if first is not None:
        free = torch.arange(len(trace), device=trace.device)[:, None, None] < _bin(first, dt)
    free[0] = False
    x, y = torch.where(free, modelled, 0.0).double(), torch.where(free, trace, 0.0).double()
    energy = x.square().sum((0, 1))
    product = (x * y).sum((0, 1))
    gain = _ratio(product.sum(), energy.sum())
    variance = (y - x * (gain or 0.0)).square().sum() / free.sum().clamp(min=1)
    thresholds, spikes = torch.zeros_like(energy), torch.zeros_like(energy)
    if first is not None:
        thresholds, spikes = _at_first_spikes(modelled, first, dt)
    threshold = _ratio((thresholds * spikes).sum(), spikes.sum())
    gains = product / energy.clamp(min=torch.finfo(energy.dtype).tiny)
    return Response(gain, float(variance.sqrt()), threshold, gains, energy, thresholds, spikes)


def _at_first_spikes(modelled: Tensor, first: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Return each neuron's mean modelled membrane at its first spikes `[N]`, and the number of first spikes.

    Between two samples the membrane is interpolated linearly; spikes in the last bin do not count.
    """
    sample, neuron = (_bin(first, dt) < len(modelled) - 1).nonzero(as_tuple=True)
    time = first[sample, neuron].double()
    low = _bin(time, dt).long()
    start = modelled[low, sample, neuron].double()
    end = modelled[low + 1, sample, neuron].double()
    reached = start + (time / dt - low) * (end - start)
    spikes = torch.bincount(neuron, minlength=first.shape[1]).double()
    return torch.zeros_like(spikes).index_add_(0, neuron, reached) / spikes.clamp(min=1), spikes


def _binned(events: Spikes, values: Tensor, dt: float, steps: int) -> Tensor:
    """Return the sums of the events' values in each bin `[T, B, J]`."""
    bins = events.bins(dt)
    inside = bins < steps
    grid = torch.zeros(steps, events.samples, events.units, dtype=torch.float64, device=values.device)
    cells = (bins[inside], events.sample[inside], events.unit[inside])
    return grid.index_put_(cells, values[inside], accumulate=True)


def _bin(time: Tensor, dt: float) -> Tensor:
    """Return the bin of each time as in `Spikes.bins`, but in floating point: infinity remains infinity."""
    return torch.floor(time.double() / dt + GRID_TOLERANCE)


def _ratio(above: Tensor, below: Tensor) -> float | None:
    return float(above / below) if float(below) > 0 else None
