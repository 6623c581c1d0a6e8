"""A network in the form that its passes use, made once and kept while the network does not change."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hxtrain.neurons import Model

from .description import Description
from .layers import Incoming, Layer


class Program(NamedTuple):
    """What passes read of a network.

    Attributes:
        mark: Mark of the constants from which the program is made, see `Constants.changes`.
        modules: Modules of the network.
        layers: Populations, the output last.
        projections: All projections, in the order of every list of weights.
        counts: Number of projections onto each layer.
        shapes: Shapes of the weights of each projection.
        description: What the network is for a device.
        models: Model of each layer.
        misfits: A text for each property of the network that its gradient does not support.
    """

    mark: int
    modules: tuple[nn.Module, ...]
    layers: list[Layer]
    projections: list[Incoming]
    counts: list[int]
    shapes: list[torch.Size]
    description: Description
    models: list[Model]
    misfits: list[str]

    def by_layer(self, weights: list[Tensor]) -> list[list[Tensor]]:
        """Group the weights of the projections by layer: feed-forward weights, then recurrent ones if any."""
        queue = iter(weights)
        return [list(islice(queue, number)) for number in self.counts]
