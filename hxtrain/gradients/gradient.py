"""The seam between a measured pass and autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.neurons import GridEvents, Measured, Model

from .injection import measured_layers

M = TypeVar("M", bound=Measured)


@dataclass
class Gradient(ABC):
    """How a measured pass is differentiated; a subclass is a dataclass whose fields are its settings.

    Attributes:
        reads_membranes: Whether the gradient depends on the membranes of hidden layers. Devices need not record them
            for a gradient that depends on spikes alone.
    """

    reads_membranes: ClassVar[bool]

    @abstractmethod
    def attach(
        self,
        weights: Sequence[tuple[Tensor, Tensor | None]],
        events: GridEvents,
        layers: Sequence[M],
        models: Sequence[Model],
    ) -> list[M]:
        """Return the measured layers in the graph of the weights; the measured values are unchanged.

        Args:
            weights: Float weights `[N, J]` of each layer, and its recurrent weights `[N, N]`, if any.
            events: Input events of the pass.
            layers: Measured layers, from the input to the output.
            models: Models of the layers: decays, surrogate, saturation.
        """

    def check(self, recurrent: Sequence[bool], saturation: float | None) -> list[str]:
        """Return a text for each property of a network that the gradient does not support; empty if it fits.

        Args:
            recurrent: Whether each layer projects onto itself.
            saturation: Current at which a synaptic input of the device saturates (weight LSB); None for linear inputs.
        """
        return []


@dataclass
class SurrogateGradient(Gradient):
    """Surrogate gradients with the measured membranes in place of the model's (Cramer et al. 2022), see `injection`.

    The surrogate, its slope and the membrane in bins with a spike belong to each population, see `hxtrain.network.LIF`.
    """

    reads_membranes: ClassVar[bool] = True

    def attach(
        self,
        weights: Sequence[tuple[Tensor, Tensor | None]],
        events: GridEvents,
        layers: Sequence[M],
        models: Sequence[Model],
    ) -> list[M]:
        """Return the measured layers with the gradients of their models, see `Gradient.attach`."""
        return measured_layers(weights, events, layers, models)

    def check(self, recurrent: Sequence[bool], saturation: float | None) -> list[str]:
        """Refuse the saturation of recurrent layers (decision 0010)."""
        if saturation is None or not any(recurrent):
            return []
        return [f"saturation={saturation:g} is not known to gradients of recurrent layers; leave it out"]


GRADIENTS: Registry[type[Gradient]] = Registry("gradients", "gradient", Gradient)
"""Gradients by name."""
