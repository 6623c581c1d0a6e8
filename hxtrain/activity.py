"""What a network did in one forward pass. Shape letters: `T` time steps, `B` samples, `N` neurons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from hxtrain.backends import Cost, Health, Spikes


class LayerActivity(NamedTuple):
    """What a layer did.

    Attributes:
        spikes: on the time grid `[T, B, N]`; None for a readout.
        trace: membrane `[T, B, N]`, leak 0, threshold 1.
        events: the same spikes with the times that the device measured; None in software and for a readout.
    """

    spikes: Tensor | None
    trace: Tensor
    events: Spikes | None = None


@dataclass
class Activity:
    """Result of a forward pass, in the autograd graph.

    Attributes:
        layers: one per layer, the readout last.
        cost: time and energy on the device; None in software.
        health: losses and retries on the device.
    """

    layers: list[LayerActivity]
    cost: Cost | None = None
    health: Health = field(default_factory=Health)

    @property
    def readout(self) -> Tensor:
        """Membrane of the last layer `[T, B, N]`."""
        return self.layers[-1].trace

    @property
    def hidden(self) -> list[LayerActivity]:
        """All layers but the last."""
        return self.layers[:-1]
