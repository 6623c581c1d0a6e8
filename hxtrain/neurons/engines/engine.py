"""The protocol of engines: what each computes for a layer, in its own way and with the same result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from hxtrain.backends import Spikes
from hxtrain.neurons.events import Grads
from hxtrain.neurons.measured import Codes, MembraneSource, SpikeGrid
from hxtrain.neurons.model import Model
from hxtrain.neurons.psp import GridEvents


class ModelLayer(NamedTuple):
    """A layer of the model: its neurons, the synapses onto them, and what arrives there.

    Attributes:
        model: Model of the layer.
        weight: Weights of the inputs `[N, J]`.
        recurrent: Recurrent weights `[N, N]`; None without recurrence.
        inputs: Input events, spikes of the upstream layer, or values `[T, B, J]`.
    """

    model: Model
    weight: Tensor
    recurrent: Tensor | None
    inputs: GridEvents | SpikeGrid | Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""
        return self.inputs.shape[0], self.inputs.shape[1], self.weight.shape[0]

    def copy(self) -> ModelLayer:
        """Return the layer with copies of its weights; those of the network may change."""
        recurrent = None if self.recurrent is None else self.recurrent.detach().clone()
        return self._replace(weight=self.weight.detach().clone(), recurrent=recurrent)

    def inputs_as_grid(self) -> Tensor | None:
        """Return the inputs as a grid `[T, B, J]`; None for input events."""
        if isinstance(self.inputs, GridEvents):
            return None
        return self.inputs.grid if isinstance(self.inputs, SpikeGrid) else self.inputs


class Demand(NamedTuple):
    """Which gradients of a layer are needed.

    Attributes:
        charge: Whether that of the charges is, from which those of the inputs and of upstream weights follow.
        weight: Whether that of the weights is.
        recurrent: Whether that of the recurrent weights is.
    """

    charge: bool
    weight: bool
    recurrent: bool


class LayerGradients(NamedTuple):
    """Gradients of a layer; those that nobody needs may be None.

    Attributes:
        charge: Gradient of the charge that arrives in each step `[T, B, N]`; with a saturation, at each synaptic
            input `[T, B, G N]`.
        weight: Gradient of the weights `[N, J]`.
        recurrent: Gradient of the recurrent weights `[N, N]`.
    """

    charge: Tensor | None
    weight: Tensor | None
    recurrent: Tensor | None


class Engine(ABC):
    """Computes layers forwards and backwards; `choice.engine_for` says which engine takes which layer."""

    @abstractmethod
    def bin_spikes(self, spikes: Spikes, dt: float, steps: int, dtype: torch.dtype) -> SpikeGrid:
        """Return measured spikes on the time grid; several spikes of a neuron in one step count once.

        Args:
            spikes: Spikes of a layer.
            dt: Width of a step (s).
            steps: Number of steps T.
            dtype: Type of the grid.

        Raises:
            ValueError: an event is out of range.
        """

    @abstractmethod
    def membranes(self, codes: Tensor, unit: float, dtype: torch.dtype, deferred: bool) -> Tensor | Codes:
        """Return the membranes of codes `[B, T, N]`; each neuron's first sample is its leak.

        Args:
            codes: Codes of the ADC, uint8 `[B, T, N]`.
            unit: Number of codes from leak to threshold.
            dtype: Type of the membranes.
            deferred: Whether an engine that computes gradients from codes may leave the membranes as codes.
        """

    @abstractmethod
    def respond(
        self, layer: ModelLayer, spiking: bool, recorded: bool
    ) -> tuple[SpikeGrid | None, Tensor | MembraneSource]:
        """Run a layer of the twin; return its spikes (None for a readout) and its membranes `[T, B, N]`.

        Args:
            layer: Layer with its inputs.
            spiking: Whether the neurons spike; False for a readout.
            recorded: Whether membranes are recorded; if not, they may be computed again when they are read.
        """

    @abstractmethod
    def follow(self, layer: ModelLayer, spikes: SpikeGrid) -> Tensor:
        """Return the membranes `[T, B, N]` of a layer of the twin with prescribed spikes.

        The prescribed spikes reset the membranes, and drive the recurrent synapses.
        """

    @abstractmethod
    def gradient(
        self,
        layer: ModelLayer,
        spikes: SpikeGrid | None,
        membrane: Tensor | Codes,
        grads: Grads,
        downstream: tuple[Tensor, Tensor] | None,
        demand: Demand,
    ) -> LayerGradients:
        """Return the gradients of a measured layer.

        Args:
            layer: Layer with its inputs.
            spikes: Measured spikes; None for a readout.
            membrane: Measured membranes `[T, B, N]`, or their codes.
            grads: Gradients of spikes, membranes and numbers of spikes.
            downstream: Gradient of the charges `[T, B, M]` and weights `[M, N]` of the downstream layer, through which
                the loss depends on the spikes, too; None without such a layer.
            demand: Gradients that are needed.
        """


class UnrecordedMembranes(NamedTuple):
    """Membranes of a layer of the twin that were not recorded, as the values from which they can be computed.

    Attributes:
        engine: Engine that ran the layer.
        layer: Layer with its inputs, and with copies of its weights.
        spikes: Spikes of the layer.
    """

    engine: Engine
    layer: ModelLayer
    spikes: SpikeGrid

    def __repr__(self) -> str:
        """Describe the membranes in a line."""
        return f"UnrecordedMembranes({list(self.shape)} [T, B, N])"

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, B, N."""
        return self.layer.shape

    def trace(self) -> Tensor:
        """Return the membranes `[T, B, N]`."""
        return self.engine.follow(self.layer, self.spikes)


def weight_gradient(charge: Tensor | None, inputs: Tensor | None) -> Tensor | None:
    """Return the gradient of the weights of inputs `[T, B, J]`; None without charges or inputs."""
    if charge is None or inputs is None:
        return None
    return charge.flatten(0, 1).t() @ inputs.flatten(0, 1)
