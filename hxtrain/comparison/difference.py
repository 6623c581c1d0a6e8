"""Differences between two passes of a layer: spikes, membranes, and responses to the input.

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
    """Difference of a layer's pass 2 from its pass 1; None if it is not defined, such as spikes of a readout.

    Attributes:
        trace: `sqrt(mean((U2 - U1)^2))` over time, samples and neurons (threshold - leak).
        trace_percent: `trace` in percent of the standard deviation of U1.
        trace_correlation: Pearson's r of U1 and U2.
        rate_correlation: Pearson's r over neurons of the mean spikes per sample.
        only_one: number of pairs (sample, neuron) that fired in exactly one pass, over the number that fired in any.
        first_spike: median of `first_spikes` (s).
        first_spike_rms: root mean square of `first_spikes` (s).
        gain: `sqrt(sum_n w_n (g2_n - g1_n)^2 / sum_n w_n)` of the neurons' gains g; the weights w are the
            smaller of the two energies.
        threshold: weighted root mean square, as in `gain`, of the differences of the neurons' thresholds; the weights
            are the smaller numbers of first spikes (threshold - leak).
        residual: `|r2 - r1|` of the layer's residuals (threshold - leak).
        first_spikes: `t2 - t1` of the first spikes, for pairs that fired in both passes `[P]` (s).
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


def difference(first: LayerPass, second: LayerPass, grid: float | None = None) -> Difference:
    """Return the difference of the second pass from the first.

    Args:
        first: pass 1 of a layer.
        second: pass 2 of the same layer, with the same input and time steps.
        grid: step to multiples of which spike times are floored (s); None: exact times.
    """
    trace = rms(second.trace - first.trace)
    spread = float(first.trace.double().std(correction=0))
    rates = only_one = None
    lags = first.trace.new_zeros(0)
    if first.spikes is not None and second.spikes is not None:
        rates = correlation(neuron_rates(first.spikes), neuron_rates(second.spikes))
        t1, t2 = first_times(first.spikes, grid), first_times(second.spikes, grid)
        fired = torch.stack((t1.isfinite(), t2.isfinite())).sum(0)
        only_one = float((fired == 1).sum() / (fired > 0).sum()) if bool((fired > 0).any()) else None
        lags = (t2 - t1)[fired == 2]
    r1, r2 = first.response, second.response
    return Difference(
        trace=trace,
        trace_percent=100 * trace / spread if spread > 0 else None,
        trace_correlation=correlation(first.trace, second.trace),
        rate_correlation=rates,
        only_one=only_one,
        first_spike=float(lags.median()) if len(lags) else None,
        first_spike_rms=rms(lags) if len(lags) else None,
        gain=_weighted_rms(r2.gains - r1.gains, torch.minimum(r1.energy, r2.energy)),
        threshold=_weighted_rms(r2.thresholds - r1.thresholds, torch.minimum(r1.spikes, r2.spikes)),
        residual=abs(r2.residual - r1.residual),
        first_spikes=lags,
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
    """Return Pearson's r of two tensors of one shape; None if one of them is constant."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return cosine(x, y)


def cosine(x: Tensor, y: Tensor) -> float | None:
    """Return the cosine of the angle between two tensors of one shape; None if one of them is zero."""
    x, y = x.double(), y.double()
    lengths = float(x.norm() * y.norm())
    return max(-1.0, min(1.0, float((x * y).sum()) / lengths)) if lengths > 0 else None


def _weighted_rms(x: Tensor, weights: Tensor) -> float | None:
    total = float(weights.sum())
    return (float((weights * x.square()).sum()) / total) ** 0.5 if total > 0 else None
