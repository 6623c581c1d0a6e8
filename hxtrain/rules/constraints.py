"""Constraints: what holds for the weights after each change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from hxtrain.backends import INPUT, Registry
from hxtrain.checks import check_types
from hxtrain.network import Network


@dataclass
class Constraint(ABC):
    """Base: a restriction of the weights, applied in place after the optimiser; fields are settings."""

    def __post_init__(self) -> None:
        check_types(self, f"constraint {type(self).__name__}: ")

    def prepare(self, net: Network) -> None:  # noqa: B027 - a hook
        """Restrict the initial weights; by default they are left as they are."""

    @abstractmethod
    def apply(self, net: Network) -> None:
        """Restrict the weights of a network in place; called without gradients."""


@dataclass
class Clamp(Constraint):
    """Clamps float weights to the range that the device can represent; without a device there is none."""

    def apply(self, net: Network) -> None:
        """Clamp the learned weights of each projection."""
        for projection, limit in zip(net.projections, net.weight_limits(), strict=True):
            weight = projection.synapses.weight
            if limit is not None and projection.synapses.is_trainable:
                weight.clamp_(-limit, limit)


@dataclass
class Mask(Constraint):
    """Sets the weights of absent synapses to zero (`Network.set_mask`), which no pass uses, as on the device."""

    def prepare(self, net: Network) -> None:
        """Set the weights of absent synapses to zero."""
        self.apply(net)

    def apply(self, net: Network) -> None:
        """Set the weights of absent synapses to zero."""
        for projection in net.projections:
            projection.synapses.apply_mask()


@dataclass
class Sign(Constraint):
    """Dale's law: all synapses of a neuron have one sign.

    Attributes:
        excitatory: Share of the neurons of each population, the first ones, whose weights are not negative; those of
            all others are not positive.
        inputs: Whether it holds for the network's inputs, too.
    """

    excitatory: float = 0.8
    inputs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.excitatory <= 1:
            raise ValueError(f"constraint Sign: excitatory={self.excitatory} must be in 0..1")

    def prepare(self, net: Network) -> None:
        """Set initial weights of the wrong sign to zero."""
        self.apply(net)

    def apply(self, net: Network) -> None:
        """Set weights of the wrong sign to zero."""
        for projection in net.projections:
            if projection.pre == INPUT and not self.inputs:
                continue
            weight = projection.synapses.weight
            if projection.synapses.is_trainable:
                border = round(self.excitatory * weight.shape[1])
                weight[:, :border].clamp_(min=0)
                weight[:, border:].clamp_(max=0)


@dataclass
class Excitatory(Constraint):
    """Sets negative weights to zero, of inputs too: all synapses excite, as in the published Pong."""

    def prepare(self, net: Network) -> None:
        """Set negative initial weights to zero."""
        self.apply(net)

    def apply(self, net: Network) -> None:
        """Set negative weights to zero."""
        for projection in net.projections:
            if projection.synapses.is_trainable:
                projection.synapses.weight.clamp_(min=0)


CONSTRAINTS: Registry[type[Constraint]] = Registry("constraints", "constraint", Constraint)
"""Constraints by name."""
