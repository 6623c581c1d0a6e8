"""How a layer's pass differs from another: spikes, membranes, and what it makes of its input.

Shape letters: `T` time steps, `B` samples, `N` neurons, `P` pairs (sample, neuron).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from hxtrain.backends import Spikes

from .passes import LayerPass
from .response import first_spikes


@dataclass(frozen=True)
class Difference:
    """How a layer's pass 2 differs from its pass 1; None where it is not defined, such as spikes of a readout.

    Attributes:
        trace: `sqrt(mean((U2 - U1)^2))` over time, samples and neurons (threshold - leak).
        trace_percent: the same in percent of the standard deviation of U1.
        trace_correlation: Pearson's r of U1 and U2.
        rate_correlation: Pearson's r over neurons of the mean spikes per sample.
        only_one: pairs (sample, neuron) that fired in exactly one pass, over those that fired in any.
        first_spike, first_spike_rms: median and root mean square of `first_spikes` (s).
        gain: `sqrt(sum_n w_n (g2_n - g1_n)^2 / sum_n w_n)` of the neurons' gains g, with the smaller of the two
            energies as weights w.
        threshold: the same of the neurons' thresholds, with the smaller number of first spikes as weights
            (threshold - leak).
        residual: `|r2 - r1|` of the layer's residuals (threshold - leak).
        first_spikes: `t2 - t1` of the first spikes of the pairs that fired in both `[P]` (s).
    """

    trace: float
    trace_percent: float | None
    trace_correlation: float | None
    rate_correlation: float | None
    only_one: float | None
    first_spike: float | None
    first_spike_rms: float | None
    gain: float | None
    threshold: float | None
    residual: float
    first_spikes: Tensor = field(repr=False)


def difference(one: LayerPass, two: LayerPass, grid: float | None = None) -> Difference:
    """Return how pass `two` differs from pass `one`.

    Args:
        one, two: the same layer, the same input, the same time steps.
        grid: times of spikes are floored to multiples of this (s); None: as measured.
    """
    trace, spread = rms(two.trace - one.trace), float(one.trace.double().std(correction=0))
    rates = only_one = None
    apart = one.trace.new_zeros(0)
    if one.spikes is not None and two.spikes is not None:
        rates = correlation(neuron_rates(one.spikes), neuron_rates(two.spikes))
        t1, t2 = first_times(one.spikes, grid), first_times(two.spikes, grid)
        fired = torch.stack((t1.isfinite(), t2.isfinite())).sum(0)
        only_one = float((fired == 1).sum() / (fired > 0).sum()) if bool((fired > 0).any()) else None
        apart = (t2 - t1)[fired == 2]
    r1, r2 = one.response, two.response
    return Difference(
        trace=trace,
        trace_percent=100 * trace / spread if spread > 0 else None,
        trace_correlation=correlation(one.trace, two.trace),
        rate_correlation=rates,
        only_one=only_one,
        first_spike=float(apart.median()) if len(apart) else None,
        first_spike_rms=rms(apart) if len(apart) else None,
        gain=_weighted_rms(r2.gains - r1.gains, torch.minimum(r1.energy, r2.energy)),
        threshold=_weighted_rms(r2.thresholds - r1.thresholds, torch.minimum(r1.spikes, r2.spikes)),
        residual=abs(r2.residual - r1.residual),
        first_spikes=apart,
    )


def neuron_rates(spikes: Spikes) -> Tensor:
    """Return the mean spikes per sample of each neuron `[N]`."""
    return torch.bincount(spikes.unit, minlength=spikes.units).double() / spikes.samples


def first_times(spikes: Spikes, grid: float | None) -> Tensor:
    """Return first-spike times `[B, N]` (s), floored to multiples of `grid`; infinite for silent neurons."""
    if grid is not None:
        spikes = Spikes(spikes.sample, spikes.unit, (spikes.bins(grid) * grid).float(), spikes.samples, spikes.units)
    return first_spikes(spikes)


def rms(x: Tensor) -> float:
    """Return the root mean square of all values."""
    return float(x.double().square().mean().sqrt())


def correlation(x: Tensor, y: Tensor) -> float | None:
    """Return Pearson's r of two tensors of one shape; None where one of them is constant."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return cosine(x, y)


def cosine(x: Tensor, y: Tensor) -> float | None:
    """Return the cosine of the angle between two tensors of one shape; None where one of them is zero."""
    x, y = x.double(), y.double()
    lengths = float(x.norm() * y.norm())
    return max(-1.0, min(1.0, float((x * y).sum()) / lengths)) if lengths > 0 else None


def _weighted_rms(x: Tensor, weights: Tensor) -> float | None:
    total = float(weights.sum())
    return (float((weights * x.square()).sum()) / total) ** 0.5 if total > 0 else None
