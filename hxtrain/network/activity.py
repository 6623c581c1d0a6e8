"""Activity of a network in one forward pass. Shape letters: `T` time steps, `B` samples, `N` neurons."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hxtrain.backends import Cost, Health, Spikes
from hxtrain.console import html_table
from hxtrain.neurons import GridEvents, MeasuredLayer


@dataclass(eq=False, repr=False)
class LayerActivity(MeasuredLayer):
    """Activity of a layer.

    Attributes:
        events: Spikes with the times that the device measured; None in software and for a readout.
    """

    events: Spikes | None = None

    def times(self, dt: float) -> Spikes:
        """Return the spikes as events: with measured times, or in software with the starts of their steps.

        Args:
            dt: Width of a step (s).

        Raises:
            ValueError: The layer is a readout.
        """
        if self.fired is None:
            raise ValueError("a readout (LI) has no spikes; end the network in a spiking LIF (network.output=spikes)")
        return self.fired.times(dt) if self.events is None else self.events


@dataclass(repr=False)
class Activity:
    """Result of a forward pass, in the autograd graph.

    Attributes:
        layers: Activity of each layer, the output last.
        cost: Time and energy on the device; None in software.
        health: Losses and retries on the device.
        inputs: Input events, of which `inputs.late` lie after the window; None if they are not available.
        onto_output: Number of projections onto the output, the last ones in lists of weights.
    """

    layers: list[LayerActivity]
    cost: Cost | None = None
    health: Health = field(default_factory=Health)
    inputs: GridEvents | None = None
    onto_output: int = 1

    def __repr__(self) -> str:
        """Describe the pass in a line, without the values of its layers."""
        sizes = "-".join(str(layer.membrane.shape[2]) for layer in self.layers)
        steps, samples = self.layers[0].membrane.shape[:2] if self.layers else (0, 0)
        origin = "in software" if self.cost is None else "measured"
        return f"Activity({samples} samples, {steps} steps, layers {sizes}, {origin})"

    def _repr_html_(self) -> str:
        """Return the layers as a table of a notebook; membranes are not computed for it."""
        rows = []
        for index, layer in enumerate(self.layers):
            _, samples, neurons = layer.membrane.shape
            if layer.counts is None:
                rows.append((index, neurons, "membranes", "", ""))
                continue
            spikes = layer.counts.detach()
            silent = int((spikes.sum(0) == 0).sum())
            rows.append((index, neurons, "spikes", f"{float(spikes.sum()) / max(samples, 1):.4g}", str(silent)))
        return html_table(("layer", "neurons", "kind", "spikes per sample", "silent neurons"), rows, repr(self))

    @property
    def output(self) -> Tensor:
        """Output that losses read `[T, B, N]`: membranes of a readout, or spikes of a spiking output."""
        last = self.layers[-1]
        spikes = last.spikes
        return last.trace if spikes is None else spikes

    @property
    def readout(self) -> Tensor:
        """Membranes of the readout `[T, B, N]`.

        Raises:
            ValueError: The output spikes.
        """
        last = self.layers[-1]
        if last.fired is not None:
            raise ValueError(
                "the network ends in a spiking LIF, so there is no readout; use activity.output, its spikes [T, B, N]"
            )
        return last.trace

    @property
    def hidden(self) -> list[LayerActivity]:
        """All layers but the output."""
        return self.layers[:-1]

    def hidden_spikes(self) -> float:
        """Return the number of spikes of all hidden neurons in all samples."""
        return sum(float(layer.counts.detach().sum()) for layer in self.hidden if layer.counts is not None)
