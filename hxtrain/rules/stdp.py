r"""Spike-timing-dependent plasticity of pairs and triplets of spikes, summed over measured spike times.

With the correlations of `hxtrain.rules.traces` and `x = w / maximum`, where negative bases of powers count as 0 (Song,
Miller and Abbott 2000; Morrison, Diesmann and Gerstner 2008; Pfister and Gerstner 2006)::

    dw / maximum = (1 - x)^mu_plus causal - x^mu_minus anticausal - n_post (heterosynaptic + forgetting w / maximum)

An exponent of 0 makes the change additive, 1 multiplicative (van Rossum, Bi and Turrigiano 2000), and others a power
law (Gütig et al. 2003). Weights are those at the start of a batch. The last term is about all synapses of a neuron that
fires, also those of silent inputs: `heterosynaptic` depresses them (the x_tar of Diehl and Cook 2015), and `forgetting`
draws them to zero (Oja 1982). With both, and without anticausal depression, weights move to

    w* = maximum (mean trace of the input at the neuron's spikes - heterosynaptic) / forgetting

so that competing neurons learn prototypes, with negative weights for inputs that are silent then. `constraint=[clamp,
sign]` with `constraint.sign.excitatory=1 constraint.sign.inputs=true` keeps weights positive instead. Only the
`winners` neurons that fire first in a sample learn from it: competition on the host, beside or instead of inhibition.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.network import Activity, Network

from .plasticity import Pathway, Plasticity, reported_loss, selected
from .rule import Batch, Step
from .traces import Correlation, Pairing, Triplets, pair_correlation, triplet_correlation


@dataclass
class WeightDependent(Plasticity):
    """Base of rules that change weights by correlations and a dependence on the weight; a subclass defines `change`.

    Attributes:
        winners: Number of neurons of a population that learn from a sample, those that fire first; 0: all.
        mu_plus: Exponent of the dependence of potentiation on the weight; 0: additive.
        mu_minus: Exponent of the dependence of depression on the weight; 0: additive.
        heterosynaptic: Depression of all synapses of a neuron at each of its spikes.
        forgetting: Share of the weights that a neuron loses at each of its spikes.
    """

    winners: int = field(default=0, kw_only=True)
    mu_plus: float = field(default=0.0, kw_only=True)
    mu_minus: float = field(default=0.0, kw_only=True)
    heterosynaptic: float = field(default=0.0, kw_only=True)
    forgetting: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("winners", "mu_plus", "mu_minus", "heterosynaptic", "forgetting")

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the negative mean change of each learned weight in its `.grad`."""
        activity: Activity = net(batch.spikes, batch.masks)
        for projection, pathway in self.pathways(net, batch, activity):
            learners = first_to_fire(pathway.post, self.winners) if self.winners else pathway.post
            self.leave_change(projection, pathway, self.change(pathway._replace(post=learners)))
        return Step(activity, reported_loss(self.objective, batch, activity))

    @abstractmethod
    def change(self, pathway: Pathway) -> Tensor:
        """Return the change of the weights `[N, J]`, summed over the samples, for a learning rate of 1."""

    def weighted(self, correlation: Correlation, pathway: Pathway) -> Tensor:
        """Return the change of the weights `[N, J]` for potentiation and depression at weight 1."""
        x = (pathway.weight.double() / pathway.maximum).clamp(min=0)
        plus, minus = correlation
        if self.mu_plus:
            plus = (1 - x).clamp(min=0) ** self.mu_plus * plus
        if self.mu_minus:
            minus = x**self.mu_minus * minus
        change = plus - minus
        if self.heterosynaptic or self.forgetting:
            per_spike = self.heterosynaptic + self.forgetting * pathway.weight.double() / pathway.maximum
            change -= per_spike * pathway.counts[:, None]
        return pathway.maximum * change


@dataclass
class STDP(WeightDependent):
    """Plasticity by pairs of spikes.

    The defaults are the published 20 ms at a speedup of 1000. The learning rate scales the amplitudes; 0.01 is that of
    Song, Miller and Abbott (2000).

    Attributes:
        tau_plus: Time constant of potentiation, the input first (s of the device).
        tau_minus: Time constant of depression (s of the device).
        a_plus: Amplitude of potentiation.
        a_minus: Amplitude of depression.
        pairing: Pairs that count: `all_to_all`, or nearest neighbours: `symmetric`, `pre_centred`, `reduced`.
    """

    solves: ClassVar[str] = "prototypes of digits without labels, beside lateral inhibition (experiment=stdp_digits)"

    tau_plus: float = 20e-6
    tau_minus: float = 20e-6
    a_plus: float = 1.0
    a_minus: float = 1.0
    pairing: str = "all_to_all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("tau_plus", "tau_minus")
        self.require_not_negative("a_plus", "a_minus")
        names = [pairing.value for pairing in Pairing]
        if self.pairing not in names:
            raise ValueError(f"rule.pairing={self.pairing!r} is not known; choose one of {', '.join(names)}")

    def change(self, pathway: Pathway) -> Tensor:
        """Return the change of the weights `[N, J]`, summed over the samples."""
        pairing = Pairing(self.pairing)
        sums = pair_correlation(pathway.pre, pathway.post, self.tau_plus, self.tau_minus, pairing)
        return self.weighted(Correlation(self.a_plus * sums.causal, self.a_minus * sums.anticausal), pathway)


_V1 = (16.8e-3, 33.7e-3)
TRIPLETS = {
    "v1_all_full": (Triplets(*_V1, 101e-3, 125e-3, 5e-10, 7e-3, 6.2e-3, 2.3e-4), False),
    "v1_all_minimal": (Triplets(*_V1, 101e-3, 114e-3, 0, 7.1e-3, 6.5e-3, 0), False),
    "v1_nearest_full": (Triplets(*_V1, 714e-3, 40e-3, 8.8e-11, 6.6e-3, 5.3e-2, 3.1e-3), True),
    "v1_nearest_minimal": (Triplets(*_V1, 714e-3, 40e-3, 0, 8e-3, 5e-2, 0), True),
    "culture_all_full": (Triplets(*_V1, 946e-3, 27e-3, 6.1e-3, 1.6e-3, 6.7e-3, 1.4e-3), False),
    "culture_all_minimal": (Triplets(*_V1, 946e-3, 40e-3, 5.3e-3, 3.5e-3, 8e-3, 0), False),
    "culture_nearest_full": (Triplets(*_V1, 575e-3, 47e-3, 4.6e-3, 3e-3, 9.1e-3, 7.5e-9), True),
    "culture_nearest_minimal": (Triplets(*_V1, 575e-3, 48e-3, 4.6e-3, 3e-3, 9.1e-3, 0), True),
}
"""Constants in biological time (s), and whether the nearest spikes alone count, by name.

They are fits to visual cortex (Sjöström et al. 2001) and hippocampal culture (Wang et al. 2005), tables 3 and 4 of
Pfister and Gerstner 2006. A minimal model has no use for tau_x.
"""


@dataclass
class TripletSTDP(WeightDependent):
    """Plasticity by pairs and triplets of spikes (Pfister and Gerstner 2006).

    Attributes:
        constants: Published constants: `v1_` (visual cortex) or `culture_` (hippocampal culture), then `all_` (all
            spikes) or `nearest_` (nearest spikes), then `full` or `minimal`.
        speedup: Factor by which the device is faster than biology; time constants are divided by it.
    """

    solves: ClassVar[str] = "pairings of Sjöström et al. 2001; prototypes of digits (experiment=triplet_stdp_digits)"

    constants: str = "v1_all_full"
    speedup: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("speedup")
        if self.constants not in TRIPLETS:
            raise ValueError(f"rule.constants={self.constants!r} is not known; choose one of {', '.join(TRIPLETS)}")

    def change(self, pathway: Pathway) -> Tensor:
        """Return the change of the weights `[N, J]`, summed over the samples."""
        triplets, is_nearest = TRIPLETS[self.constants]
        taus = {name: getattr(triplets, name) / self.speedup for name in ("tau_plus", "tau_minus", "tau_x", "tau_y")}
        scaled = triplets._replace(**taus)
        return self.weighted(triplet_correlation(pathway.pre, pathway.post, scaled, is_nearest), pathway)


def first_to_fire(spikes: Spikes, winners: int) -> Spikes:
    """Return the spikes of the neurons that fire first in each sample.

    Of neurons that fire at the same time, those with more spikes come first, then those with lower numbers.

    Args:
        spikes: Spikes of a population.
        winners: Number of neurons per sample.
    """
    shape = (spikes.samples, spikes.units)
    index = spikes.sample * spikes.units + spikes.unit
    times = torch.full((math.prod(shape),), torch.inf, dtype=torch.float64, device=index.device)
    times.scatter_reduce_(0, index, spikes.time.double(), "amin")
    counts = torch.bincount(index, minlength=len(times)).view(shape)
    by_count = torch.argsort(counts, dim=1, descending=True, stable=True)
    order = torch.argsort(times.view(shape).gather(1, by_count), dim=1, stable=True)
    chosen = torch.zeros(shape, dtype=torch.bool, device=index.device)
    chosen.scatter_(1, by_count.gather(1, order[:, :winners]), True)
    return selected(spikes, chosen.view(-1)[index])
