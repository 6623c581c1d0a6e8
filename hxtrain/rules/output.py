"""Rules that learn the projection onto a spiking output, from the spikes of the output and of what is upstream."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hxtrain.backends import Capabilities, Spikes
from hxtrain.network import Activity, Network

from .inputs import input_events
from .plasticity import reported_loss
from .rule import Batch, LearningRule, Step


@dataclass
class OutputRule(LearningRule):
    """Base of rules for one layer of synapses: projections onto hidden populations keep their values.

    `.grad` is the mean over the samples. The loss of a step is that of the objective, which these rules do not follow.
    """

    choice: ClassVar[str]
    """Settings beside the spiking output that the rule goes with, for a refusal."""

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text with a remedy for each misfit; see `LearningRule.check` for the arguments."""
        misfits = super().check(net, capabilities)
        output = net.layers[-1]
        if not output.neurons.spiking:
            misfits.append(
                f"{self.name} learns from output spikes, but the network ends in a readout; end it in "
                f"LIF({output.neurons.size}) (network.output=spikes) and choose {self.choice}"
            )
        if not output.linear.is_trainable:
            misfits.append(
                f"{self.name} learns the projection onto the output, but it is fixed; make it with learned=True"
            )
        if output.recurrent is not None and output.recurrent.is_trainable:
            misfits.append(
                f"{self.name} learns feed-forward projections, but the output's recurrent one is learned, too; make it "
                "with learned=False"
            )
        return misfits

    @abstractmethod
    def gradient(self, net: Network, batch: Batch, activity: Activity) -> Tensor:
        """Return the sum over samples of the negative change of the weights onto the output `[N, J]`."""

    @torch.no_grad()
    def step(self, net: Network, batch: Batch) -> Step:
        """Run a batch, and leave the negative change of the weights onto the output in `.grad`."""
        activity: Activity = net(batch.spikes, batch.masks)
        synapses = net.layers[-1].linear
        gradient = self.gradient(net, batch, activity) / batch.spikes.samples
        if batch.masks is not None and batch.masks[-1] is not None:
            gradient = gradient * batch.masks[-1][:, None]
        if synapses.mask is not None:
            gradient = torch.where(synapses.mask, gradient, 0.0)
        synapses.weight.grad = gradient.to(synapses.weight)
        return Step(activity, reported_loss(self.objective, batch, activity))


def upstream_spikes(net: Network, batch: Batch, activity: Activity) -> Spikes:
    """Return the spikes that arrive at the output."""
    if len(activity.layers) > 1:
        return activity.layers[-2].times(net.dt)
    return input_events(net, batch)
