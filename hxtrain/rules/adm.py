"""Backpropagation with the approximate derivatives of Lee et al. (Frontiers in Neuroscience 14, 2020).

`hxtrain.gradients.adm` has the equations. The rule is `Backprop` of passes that are differentiated so, whatever the
gradient of the network; `gradient=adm` with `rule=backprop` is the same. A run of either spares devices the hidden
membranes; in Python this takes `net.attach(device, gradient=ADMGradient())`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from hxtrain.backends import Capabilities
from hxtrain.gradients import Gradient
from hxtrain.gradients.adm import ADMGradient
from hxtrain.network import Activity, Network

from .backprop import Backprop
from .rule import Batch


@dataclass(init=False)
class ADM(Backprop):
    """Descent of a loss and penalties with derivatives from numbers and leaky sums of spikes; see `Backprop`."""

    gradient_kind: ClassVar[type[Gradient] | None] = ADMGradient
    solves: ClassVar[str] = "digits and MNIST 16x16 from hidden spikes alone (experiment=adm_digits, adm_mnist16)"

    def check(self, net: Network, capabilities: Capabilities | None) -> list[str]:
        """Return a text for each misfit, see `LearningRule.check`."""
        recurrent = [layer.recurrent is not None for layer in net.layers]
        return super().check(net, capabilities) + ADMGradient().check(recurrent, net.saturation)

    def run(self, net: Network, batch: Batch) -> Activity:
        """Return the activity of a batch, in the graph of approximate derivatives."""
        with torch.no_grad():
            activity: Activity = net(batch.spikes, batch.masks)
        assert activity.inputs is not None  # a network of hxtrain says what it got
        weights = net.by_layer(net.effective_weights(batch.masks))
        onto = [(weight, recurrent[0] if recurrent else None) for weight, *recurrent in weights]
        activity.layers = ADMGradient().attach(onto, activity.inputs, activity.layers, net.models())
        return activity
