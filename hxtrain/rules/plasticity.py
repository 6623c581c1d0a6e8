r"""Local plasticity of the synapses of spiking populations: what all rules of the Hebbian family share.

A rule sums what each synapse learns from the activity of its two neurons. This base takes the spikes of every learned
projection, and adds homeostasis to the mean change over a batch::

    dw_ij = ... + homeostasis maximum (target_spikes - n_i)     n_i: mean number of spikes of output i per sample

It works on measured spikes, so that it also balances what the mismatch of a chip unbalances.
"""

from __future__ import annotations

import math
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

from .inputs import input_events
from .rule import Batch, LearningRule, LossFunction, Need, Objective


class Pathway(NamedTuple):
    """A learned projection in one pass.

    Attributes:
        name: Name of the projection.
        pre: Spikes of its sources.
        post: Spikes of its targets.
        weight: Weights `[N, J]`.
        maximum: Weight that counts as 1.
        active: Targets that take part in the pass `[N]`; None: all.
    """

    name: str
    pre: Spikes
    post: Spikes
    weight: Tensor
    maximum: float
    active: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """Numbers of spikes of the targets `[N]`."""
        return counts_of(self.post)


@dataclass
class Plasticity(LearningRule):
    """Base of local rules for the synapses of spiking populations.

    Attributes:
        maximum: Weight that counts as 1 (threshold - leak); None: the largest one that the device represents, in
            software 1.
        homeostasis: Growth of the weights of a neuron per spike that it lacks, in units of `maximum`; 0: none.
        target_spikes: Number of spikes per sample that homeostasis aims at.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.INPUT_SPIKES, Need.SPIKES})
    is_local: ClassVar[bool] = True

    maximum: Optional[float] = field(default=None, kw_only=True)  # noqa: UP045 - the form for every OmegaConf
    homeostasis: float = field(default=0.0, kw_only=True)
    target_spikes: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum is not None and not 0 < self.maximum < math.inf:
            raise ValueError(f"rule.maximum={self.maximum} must be positive and finite, or null")
        self.require_not_negative("homeostasis", "target_spikes")

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
                "population that does (network.output=spikes loss=spike_count, or network=winner_take_all loss=vote)"
            )
        return misfits

    def leave_change(self, projection: Incoming, pathway: Pathway, change: Tensor) -> None:
        """Leave the negative mean change of a projection in its `.grad`.

        Args:
            projection: Projection that learns.
            pathway: Spikes of the projection.
            change: Change of the weights `[N, J]`, summed over the samples.
        """
        samples = max(pathway.post.samples, 1)
        mean = change / samples
        if self.homeostasis:
            lack = self.target_spikes - pathway.counts / samples
            lack = lack if pathway.active is None else lack * pathway.active
            mean = mean + self.homeostasis * pathway.maximum * lack[:, None]
        mask = projection.synapses.mask
        weight = projection.synapses.weight
        weight.grad = -(mean if mask is None else mean * mask).to(weight)

    def pathways(self, net: Network, batch: Batch, activity: Activity) -> Iterator[tuple[Incoming, Pathway]]:
        """Yield the learned projections with their spikes in a pass."""
        window = net.steps * net.dt
        trains = {INPUT: window_of(input_events(net, batch), window)}
        masks = dict(zip((layer.name for layer in net.layers), batch.masks or [None] * len(net.layers), strict=True))
        for layer, measured in zip(net.layers, activity.layers, strict=True):
            if layer.neurons.spiking:
                trains[layer.name] = measured.times(net.dt)
        for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
            if projection.synapses.is_trainable and projection.post in trains:
                maximum = self.maximum or limit or 1.0
                weight = projection.synapses.effective_weight
                spikes = trains[projection.pre], trains[projection.post]
                yield projection, Pathway(projection.name, *spikes, weight, maximum, masks[projection.post])


def window_of(spikes: Spikes, end: float) -> Spikes:
    """Return the events earlier than `end` (s)."""
    return selected(spikes, spikes.time < end)


def counts_of(spikes: Spikes) -> Tensor:
    """Return the number of spikes of each unit in all samples, int64 `[N]`."""
    return torch.bincount(spikes.unit, minlength=spikes.units)


def selected(spikes: Spikes, mask: Tensor) -> Spikes:
    """Return the events of a mask `[E]`."""
    if bool(mask.all()):
        return spikes
    return Spikes.trusted(spikes.sample[mask], spikes.unit[mask], spikes.time[mask], spikes.samples, spikes.units)


def reported_loss(objective: Objective, batch: Batch, activity: Activity) -> float:
    """Return the loss of a pass, which a rule reports but does not follow."""
    loss: LossFunction = batch.loss or objective.loss
    output = read_output(objective.loss, activity)
    return float(loss(output, as_tensor(batch.labels, "labels").to(output.device)))
