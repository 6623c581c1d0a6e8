"""The seam between a measured pass and autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, TypeVar

from torch import Tensor

from hxtrain.backends import Registry
from hxtrain.checks import check_types, one_of, positive
from hxtrain.neurons import GridEvents, MeasuredLayer, Model, Surrogate, get_surrogate

from .injection import measured_layers

M = TypeVar("M", bound=MeasuredLayer)
AT_SPIKE = ("threshold", "trace")
"""Membranes that a surrogate may see in a bin with a spike, see `SurrogateGradient`."""


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

    Attributes:
        surrogate: Surrogate derivative of all populations, a name or a function; None: that of each population, see
            `hxtrain.network.LIF`.
        slope: Inverse width of the surrogate of all populations; None: that of each population.
        at_spike: Membrane that the surrogate sees in a bin with a spike, `threshold` or `trace`, in all populations;
            None: that of each population.
        refractory: Whether no gradient passes a membrane that is held at its reset after a spike; every spiking
            population needs a refractory period. False: gradients do not know it, as published (decision 0023).
    """

    reads_membranes: ClassVar[bool] = True
    surrogate: Any = None
    slope: Optional[float] = None  # noqa: UP045 - spelt so for every OmegaConf
    at_spike: Optional[str] = None  # noqa: UP045
    refractory: bool = False

    def __post_init__(self) -> None:
        check_types(self, "gradient.")
        if self.slope is not None:
            positive("gradient.slope", self.slope)
        if self.at_spike is not None:
            one_of(AT_SPIKE)("gradient.at_spike", self.at_spike)
        self._derivative()

    def _derivative(self) -> Surrogate | None:
        """Return the surrogate derivative of all populations; None: that of each population.

        Raises:
            ValueError: No surrogate of that name is registered.
        """
        return None if self.surrogate is None else get_surrogate(self.surrogate)

    def replaced(self, model: Model) -> Model:
        """Return the model of a layer with the settings of this gradient."""
        return model._replace(
            surrogate=self._derivative() or model.surrogate,
            slope=self.slope or model.slope,
            at_threshold=model.at_threshold if self.at_spike is None else self.at_spike == AT_SPIKE[0],
            holds_gradient=self.refractory,
        )

    def attach(
        self,
        weights: Sequence[tuple[Tensor, Tensor | None]],
        events: GridEvents,
        layers: Sequence[M],
        models: Sequence[Model],
    ) -> list[M]:
        """Return the measured layers with the gradients of their models, see `Gradient.attach`."""
        if self.refractory:
            _require_hold(layers, models)
        if self.refractory or (self.surrogate, self.slope, self.at_spike) != (None, None, None):
            models = [self.replaced(model) for model in models]
        return measured_layers(weights, events, layers, models)


def _require_hold(layers: Sequence[MeasuredLayer], models: Sequence[Model]) -> None:
    """Refuse spiking layers without a refractory period.

    Raises:
        ValueError: A spiking layer has none.
    """
    if any(layer.fired is not None and model.hold is None for layer, model in zip(layers, models, strict=True)):
        raise ValueError(
            "gradient.refractory=true needs the refractory period of every spiking population; set network.refractory, "
            "such as 2e-6, or LIF(refractory=2e-6)"
        )


GRADIENTS: Registry[type[Gradient]] = Registry("gradients", "gradient", Gradient)
"""Gradients by name."""
