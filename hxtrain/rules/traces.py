r"""Correlations of input and output spikes, from events with their times.

Rules of spike-timing-dependent plasticity sum them. A trace jumps at each spike of a neuron and decays exponentially.
With traces r of the inputs and o of the outputs (Morrison, Diesmann and Gerstner 2008; Pfister and Gerstner 2006)::

    causal[i, j]     = sum over spikes of output i of f r1_j (A2+ + A3+ o2_i)     r1: tau_plus,  o2: tau_y
    anticausal[i, j] = sum over spikes of input j of  f o1_i (A2- + A3- r2_j)     o1: tau_minus, r2: tau_x

f is a factor of the spike at which the sum grows, 1 unless given. Any rule with a linear third factor is a choice of
f: an eligibility trace with time constant tau_e that a reward R reads at time T has `f = R exp(-(T - t) / tau_e)`.

Order of spikes at the same time: all of them read the traces that earlier spikes left, then all enter their traces. So
two spikes at the same time are no pair, as in NEST. For the nearest neighbours of later spikes the output fired first.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.neurons.events import SortedEvents


class Pairing(str, Enum):
    """Pairs of spikes that count (Morrison, Diesmann and Gerstner 2008, figure 7).

    - `all_to_all`: every spike with all earlier spikes of the other neuron.
    - `symmetric`: every spike with the last earlier spike of the other neuron.
    - `pre_centred`: every input spike with the last output spike before it and the first one after it.
    - `reduced`: as `symmetric`, but neighbours alone: no other spike of both neurons lies between them.
    """

    ALL_TO_ALL = "all_to_all"
    SYMMETRIC = "symmetric"
    PRE_CENTRED = "pre_centred"
    REDUCED = "reduced"


class Triplets(NamedTuple):
    """Constants of the traces.

    Attributes:
        tau_plus: Time constant of the trace r1 of the inputs (s).
        tau_minus: Time constant of the trace o1 of the outputs (s).
        tau_x: Time constant of the second trace r2 of the inputs (s).
        tau_y: Time constant of the second trace o2 of the outputs (s).
        a2_plus: Potentiation by a pair.
        a2_minus: Depression by a pair.
        a3_plus: Potentiation by a triplet post-pre-post.
        a3_minus: Depression by a triplet pre-post-pre.
    """

    tau_plus: float
    tau_minus: float
    tau_x: float
    tau_y: float
    a2_plus: float = 1.0
    a2_minus: float = 1.0
    a3_plus: float = 0.0
    a3_minus: float = 0.0


class Correlation(NamedTuple):
    """Sums over spikes, float64.

    Attributes:
        causal: Sum at the spikes of the outputs `[N, J]`, `[B, N, J]` of separate samples.
        anticausal: Sum at the spikes of the inputs, in the same shape.
    """

    causal: Tensor
    anticausal: Tensor


def pair_correlation(
    pre: Spikes,
    post: Spikes,
    tau_plus: float,
    tau_minus: float,
    pairing: Pairing = Pairing.ALL_TO_ALL,
    factors: tuple[Tensor, Tensor] | None = None,
    separate: bool = False,
) -> Correlation:
    """Return the correlations of pairs of spikes; a pair with a lag of t counts `exp(-t / tau)`.

    Args:
        pre: Spikes of the inputs, of `B` samples and `J` units; events in any order within a sample.
        post: Spikes of the outputs, of `B` samples and `N` units.
        tau_plus: Time constant of causal pairs, the input first (s).
        tau_minus: Time constant of anticausal pairs (s).
        pairing: Pairs that count.
        factors: Factor of each input event `[E]` and of each output event `[E]`; None: 1.
        separate: Whether the samples are kept apart; else they are summed.

    Raises:
        ValueError: The numbers of samples or of factors differ, or a time constant is not positive.
    """
    if pairing in (Pairing.ALL_TO_ALL, Pairing.SYMMETRIC):
        constants = Triplets(tau_plus, tau_minus, tau_plus, tau_minus)
        return triplet_correlation(pre, post, constants, pairing is Pairing.SYMMETRIC, factors, separate)
    from .trace_kernel import nearest_sums

    _check(pre, post, tau_plus, tau_minus)
    sums = _Sums(pre, post, factors, separate)
    nearest_sums(*sums.events, tau_plus, tau_minus, pairing is Pairing.REDUCED, separate, *sums.results)
    return sums.correlation()


def triplet_correlation(
    pre: Spikes,
    post: Spikes,
    constants: Triplets,
    nearest: bool = False,
    factors: tuple[Tensor, Tensor] | None = None,
    separate: bool = False,
) -> Correlation:
    """Return the correlations of pairs and triplets of spikes.

    Args:
        pre: Spikes of the inputs, of `B` samples and `J` units; events in any order within a sample.
        post: Spikes of the outputs, of `B` samples and `N` units.
        constants: Time constants and amplitudes.
        nearest: Whether a spike sets its traces to 1 instead of adding 1, so that the last spike alone counts.
        factors: Factor of each input event `[E]` and of each output event `[E]`; None: 1.
        separate: Whether the samples are kept apart; else they are summed.

    Raises:
        ValueError: The numbers of samples or of factors differ, or a time constant is not positive.
    """
    from .trace_kernel import trace_sums

    _check(pre, post, *constants[:4])
    sums = _Sums(pre, post, factors, separate)
    trace_sums(*sums.events, np.array(constants), nearest, separate, *sums.results)
    return sums.correlation()


def _check(pre: Spikes, post: Spikes, *taus: float) -> None:
    """Refuse different numbers of samples, and time constants that are not positive."""
    if pre.samples != post.samples:
        raise ValueError(f"the inputs have {pre.samples} samples, the outputs {post.samples}; they must be of one pass")
    if not all(0 < tau < np.inf for tau in taus):
        raise ValueError(
            f"time constants {', '.join(f'{tau:g}' for tau in dict.fromkeys(taus))} s must be positive and finite"
        )


class _Sums:
    """Arguments and results of the loops: events sorted by sample and time, and sums of zero."""

    def __init__(self, pre: Spikes, post: Spikes, factors: tuple[Tensor, Tensor] | None, separate: bool) -> None:
        of_pre, of_post = (None, None) if factors is None else factors
        self.events = sorted_events(pre, of_pre, "inputs"), sorted_events(post, of_post, "outputs")
        samples = pre.samples if separate else 1
        self.results = (np.zeros((samples, post.units, pre.units)), np.zeros((samples, pre.units, post.units)))
        self._separate = separate
        self._device = post.time.device

    def correlation(self) -> Correlation:
        """Return the results on the accelerator of the events."""
        causal = torch.from_numpy(self.results[0])
        anticausal = torch.from_numpy(self.results[1]).transpose(1, 2)
        parts = (causal, anticausal) if self._separate else (causal[0], anticausal[0])
        return Correlation(*(part.to(self._device) for part in parts))


def sorted_events(spikes: Spikes, factor: Tensor | None = None, label: str = "events") -> SortedEvents:
    """Return events as loops take them, sorted by sample and time.

    Args:
        spikes: Events of `B` samples.
        factor: Factor of each event `[E]`; None: 1.
        label: Name of the events, for errors.

    Raises:
        ValueError: The number of factors differs.
    """
    from .order_kernel import time_order

    sample, unit, time = (part.cpu().numpy() for part in (spikes.sample, spikes.unit, spikes.time))
    times = time.astype(np.float64)
    factors = np.ones(len(time)) if factor is None else factor.detach().cpu().numpy().astype(np.float64)
    if factors.shape != time.shape:
        raise ValueError(f"{len(time)} events of the {label}, but factors {list(factors.shape)}; give one per event")
    offsets = np.zeros(spikes.samples + 1, np.int64)
    np.cumsum(np.bincount(sample, minlength=spikes.samples), out=offsets[1:])
    order = np.empty(len(time), np.int64)
    if time_order(sample, times, (times + 0.0).view(np.uint64), offsets, order):
        return SortedEvents(offsets, unit, times, factors)
    return SortedEvents(offsets, unit[order], times[order], factors[order])
