"""What a network did in one forward pass. Shape letters: `T` time steps, `B` samples, `N` neurons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from hxtrain.backends import Cost, Health, Spikes

from .learning import Grouped, compiled


class LayerActivity(NamedTuple):
    """What a layer did.

    Attributes:
        spikes: on the time grid `[T, B, N]`; None for a readout.
        trace: membrane `[T, B, N]`, leak 0, threshold 1.
        events: the same spikes with the times that the device measured; None in software and for a readout.
        counts: numbers of spikes `[B, N]`, the sum of `spikes` over time; None for a readout. In the graph, their
            gradient costs less than that of the sum.
        grouped: the spikes on the time grid once more, as events; None where they are not at hand.
    """

    spikes: Tensor | None
    trace: Tensor
    events: Spikes | None = None
    counts: Tensor | None = None
    grouped: Grouped | None = None


def layer_activity(
    spikes: Tensor | None, trace: Tensor, events: Spikes | None = None, grouped: Grouped | None = None
) -> LayerActivity:
    """Return what a layer did, its spikes counted."""
    counts = None
    if spikes is not None:
        steps, samples, _ = spikes.shape
        counts = spikes.sum(0) if grouped is None else compiled.count_events(grouped, steps, samples).to(trace.dtype)
    return LayerActivity(spikes, trace, events, counts, grouped)


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

    def hidden_spikes(self) -> float:
        """Return how many spikes all hidden neurons had, of all samples."""
        return sum(float(layer.counts.detach().sum()) for layer in self.hidden if layer.counts is not None)
