r"""Protocols of experiments on spike-timing-dependent plasticity, and what rules of pairs and triplets make of them.

Times are biological and divided by a speedup. Each protocol is one sample of an input and an output::

    pairing      n pairs at a rate, the output a lag after the input (Sjöström, Turrigiano and Nelson 2001)
    triplets     three spikes, 5 ms apart by default, n times (Wang et al. 2005)
    quadruplets  a pair post-pre and a pair pre-post, `gap` apart; in the other order for a negative gap (the same)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes

from .plasticity import Pathway
from .stdp import WeightDependent


class Protocol(NamedTuple):
    """Spikes of an input and of an output.

    Attributes:
        pre: Spikes of the input.
        post: Spikes of the output.
    """

    pre: Spikes
    post: Spikes


class Measurement(NamedTuple):
    """A measured relative change of a synapse.

    Attributes:
        rate: Rate of the pairings (Hz).
        lag: Time of the output's spike after that of the input (s).
        change: Mean relative change.
        error: Standard error of the mean.
    """

    rate: float
    lag: float
    change: float
    error: float


RATES = (0.1, 10.0, 20.0, 40.0, 50.0)
CORTEX = [
    *map(Measurement, RATES, [10e-3] * 5, (-0.04, 0.14, 0.29, 0.53, 0.56), (0.05, 0.10, 0.14, 0.11, 0.26)),
    *map(Measurement, RATES, [-10e-3] * 5, (-0.29, -0.41, -0.34, 0.56, 0.75), (0.08, 0.11, 0.10, 0.32, 0.19)),
]
"""Pairings in visual cortex by rate and lag (Sjöström et al. 2001, as in table 1 of Pfister and Gerstner 2006)."""


def pairing(rate: float, lag: float, pairs: int = 60, speedup: float = 1000.0) -> Protocol:
    """Return pairs of spikes at a rate (Hz), the output `lag` (s) after the input."""
    starts = torch.arange(pairs, dtype=torch.float64) / rate
    return _protocol(starts + max(-lag, 0), starts + max(lag, 0), speedup)


def triplets(
    pre: Sequence[float], post: Sequence[float], repeats: int = 60, rate: float = 1.0, speedup: float = 1000.0
) -> Protocol:
    """Return a group of spikes that is repeated at a rate (Hz).

    Args:
        pre: Times of the input in the group (s), such as (0, 10e-3).
        post: Times of the output in the group (s), such as (5e-3,).
        repeats: Number of groups.
        rate: Groups per second.
        speedup: Factor by which the device is faster than biology.
    """
    starts = torch.arange(repeats, dtype=torch.float64)[:, None] / rate
    pre_times, post_times = ((starts + torch.tensor(group).double()).flatten() for group in (pre, post))
    return _protocol(pre_times, post_times, speedup)


def quadruplets(
    gap: float, lag: float = 5e-3, repeats: int = 60, rate: float = 1.0, speedup: float = 1000.0
) -> Protocol:
    """Return pairs post-pre and pre-post, `gap` (s) from centre to centre; for a negative gap pre-post comes first."""
    half = lag / 2
    distance = abs(gap)
    sign = 1 if gap > 0 else -1
    pre = (half + sign * half, half + distance - sign * half)
    post = (half - sign * half, half + distance + sign * half)
    return triplets(pre, post, repeats, rate, speedup)


def _protocol(pre: Tensor, post: Tensor, speedup: float) -> Protocol:
    """Return a protocol of times (s); they stay in double precision, since lags are short against a protocol."""

    def train(times: Tensor) -> Spikes:
        zeros = torch.zeros(len(times), dtype=torch.int64)
        return Spikes.trusted(zeros, zeros, times / speedup, 1, 1)

    return Protocol(train(pre), train(post))


def relative_change(rule: WeightDependent, protocol: Protocol, weight: float = 0.5) -> float:
    """Return the change of a synapse by a protocol, in units of its maximum.

    Args:
        rule: Rule with time constants of the device.
        protocol: Spikes of both neurons.
        weight: Weight of the synapse, in units of its maximum; rules with exponents of 0 do not depend on it.
    """
    pathway = Pathway("protocol", protocol.pre, protocol.post, torch.tensor([[weight]]), 1.0)
    return float(rule.change(pathway))


def pair_changes(rule: WeightDependent, lags: Sequence[float], speedup: float = 1000.0) -> list[float]:
    """Return the change of a synapse by one pair of spikes at each lag (s of biology), see `relative_change`."""
    return [relative_change(rule, pairing(1.0, lag, 1, speedup)) for lag in lags]


def cortex_error(rule: WeightDependent, speedup: float = 1000.0) -> float:
    """Return the mean squared deviation from `CORTEX`, in standard errors; 0 is perfect, a good fit is below 1."""
    deviations = [
        (relative_change(rule, pairing(point.rate, point.lag, speedup=speedup)) - point.change) / point.error
        for point in CORTEX
    ]
    return sum(deviation**2 for deviation in deviations) / len(deviations)
