r"""Local plasticity of the synapses of spiking populations: what all rules of the Hebbian family share.

A rule sums what each synapse learns from the spikes of its two neurons, `change`. This base runs the network, takes the
spikes of every learned projection, and adds::

    homeostasis   dw_ij += homeostasis maximum (target_spikes - n_i)     n_i: spikes of output i per sample, batch mean
    competition   only the `winners` neurons that fire first in a sample learn from it

Both work on measured spikes, so that they also balance what a chip's mismatch unbalances.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Optional

import torch
from torch import Tensor

from hxtrain.backends import INPUT, Capabilities, Spikes
from hxtrain.backends.intake import as_tensor
from hxtrain.network import Activity, Network
from hxtrain.network.layers import Incoming
from hxtrain.objectives.losses import read_output

from .rule import Batch, LearningRule, LossFunction, Need, Objective, Step


class Pathway(NamedTuple):
    """A learned projection in one pass.

    Attributes:
        name: Name of the projection.
        pre: Spikes of its sources.
        post: Spikes of its targets that learn.
        spikes: Spikes of all its targets.
        weight: Weights `[N, J]`.
        maximum: Weight that counts as 1.
    """

    name: str
    pre: Spikes
    post: Spikes
    spikes: Spikes
    weight: Tensor
    maximum: float

    @property
    def counts(self) -> Tensor:
        """Numbers of spikes of the targets `[N]`."""
        return torch.bincount(self.spikes.unit, minlength=self.spikes.units)


@dataclass
class Plasticity(LearningRule):
    """Base of local rules for the synapses of spiking populations; a subclass defines `change`.

    Attributes:
        maximum: Weight that counts as 1 (threshold - leak); None: the largest one that the device represents, in
            software 1.
        winners: Number of neurons of a population that learn from a sample, those that fire first; 0: all.
        homeostasis: Growth of the weights of a neuron per spike that it lacks, in units of `maximum`; 0: none.
        target_spikes: Number of spikes per sample that homeostasis aims at.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES})
    is_local: ClassVar[bool] = True

    maximum: Optional[float] = field(default=None, kw_only=True)  # noqa: UP045 - the form for every OmegaConf
    winners: int = field(default=0, kw_only=True)
    homeostasis: float = field(default=0.0, kw_only=True)
    target_spikes: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum is not None and not 0 < self.maximum < math.inf:
            raise ValueError(f"rule.maximum={self.maximum} must be positive and finite, or null")
        for name in ("winners", "homeostasis", "target_spikes"):
            self.require_not_negative(name)

    def require_positive(self, *names: str) -> None:
        """Refuse settings that are not positive and finite."""
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"rule.{name}={getattr(self, name)} must be positive and finite")

    def require_not_negative(self, *names: str) -> None:
        """Refuse settings that are negative or not finite."""
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"rule.{name}={getattr(self, name)} must be finite and not negative")

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text for each misfit: a learned projection onto neurons that do not spike has nothing to learn."""
        misfits = super().check(net, capabilities)
        silent = [p.name for layer in net.layers if not layer.neurons.spiking for p in layer.projections]
        learned = {p.name for p in net.projections if p.synapses.is_trainable}
        if learned & set(silent):
            misfits.append(
                f"{', '.join(sorted(learned & set(silent)))}: the readout does not spike; end the network in a "
                "population that does (network.output=spikes, or network=winner_take_all loss=vote)"
            )
        return misfits

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the negative mean change of each learned weight in its `.grad`."""
        activity: Activity = net(batch.spikes, batch.masks)
        for projection, pathway in self.pathways(net, batch, activity):
            samples = max(pathway.post.samples, 1)
            change = self.change(pathway) / samples
            if self.homeostasis:
                lack = self.target_spikes - pathway.counts / samples
                change += self.homeostasis * pathway.maximum * lack[:, None]
            weight = projection.synapses.weight
            mask = projection.synapses.mask
            weight.grad = -(change if mask is None else change * mask).to(weight)
        return Step(activity, reported_loss(self.objective, batch, activity))

    @abstractmethod
    def change(self, pathway: Pathway) -> Tensor:
        """Return the change of the weights `[N, J]`, summed over the samples, for a learning rate of 1."""

    def pathways(self, net: Network, batch: Batch, activity: Activity) -> Iterator[tuple[Incoming, Pathway]]:
        """Yield the learned projections with their spikes in a pass."""
        window = net.steps * net.dt
        trains = {INPUT: window_of(batch.spikes.to(net.torch_device), window)}
        for layer, measured in zip(net.layers, activity.layers, strict=True):
            if layer.neurons.spiking:
                trains[layer.name] = measured.times(net.dt)
        for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
            if projection.synapses.is_trainable and projection.post in trains:
                spikes = trains[projection.post]
                post = first_to_fire(spikes, self.winners) if self.winners else spikes
                maximum = self.maximum or limit or 1.0
                weight = projection.synapses.effective_weight
                yield projection, Pathway(projection.name, trains[projection.pre], post, spikes, weight, maximum)


def window_of(spikes: Spikes, end: float) -> Spikes:
    """Return the events earlier than `end` (s)."""
    return selected(spikes, spikes.time < end)


def selected(spikes: Spikes, mask: Tensor) -> Spikes:
    """Return the events of a mask `[E]`."""
    if bool(mask.all()):
        return spikes
    return Spikes.trusted(spikes.sample[mask], spikes.unit[mask], spikes.time[mask], spikes.samples, spikes.units)


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


def reported_loss(objective: Objective, batch: Batch, activity: Activity) -> float:
    """Return the loss of a pass, which a rule reports but does not follow."""
    loss: LossFunction = batch.loss or objective.loss
    output = read_output(objective.loss, activity)
    return float(loss(output, as_tensor(batch.labels, "labels").to(output.device)))
