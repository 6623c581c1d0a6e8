"""Activity of a network in one forward pass. Shape letters: `T` time steps, `B` samples, `N` neurons."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hxtrain.backends import Cost, Health, Spikes
from hxtrain.neurons import GridEvents, MeasuredLayer


@dataclass(eq=False, repr=False)
class LayerActivity(MeasuredLayer):
    """Activity of a layer.

    Attributes:
        events: Spikes with the times that the device measured; None in software and for a readout.
    """

    events: Spikes | None = None


@dataclass(repr=False)
class Activity:
    """Result of a forward pass, in the autograd graph.

    Attributes:
        layers: Activity of each layer, the readout last.
        cost: Time and energy on the device; None in software.
        health: Losses and retries on the device.
        inputs: Input events, of which `inputs.late` lie after the window; None if they are not available.
    """

    layers: list[LayerActivity]
    cost: Cost | None = None
    health: Health = field(default_factory=Health)
    inputs: GridEvents | None = None

    def __repr__(self) -> str:
        """Describe the pass in a line, without the values of its layers."""
        sizes = "-".join(str(layer.membrane.shape[2]) for layer in self.layers)
        steps, samples = self.layers[0].membrane.shape[:2] if self.layers else (0, 0)
        origin = "in software" if self.cost is None else "measured"
        return f"Activity({samples} samples, {steps} steps, layers {sizes}, {origin})"

    @property
    def readout(self) -> Tensor:
        """Membrane of the last layer `[T, B, N]`."""
        return self.layers[-1].trace

    @property
    def hidden(self) -> list[LayerActivity]:
        """All layers but the last."""
        return self.layers[:-1]

    def hidden_spikes(self) -> float:
        """Return the number of spikes of all hidden neurons in all samples."""
        return sum(float(layer.counts.detach().sum()) for layer in self.hidden if layer.counts is not None)
