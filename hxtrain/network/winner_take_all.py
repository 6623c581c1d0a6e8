"""A population whose neurons compete: inputs, and LIF neurons that inhibit one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from hxtrain.checks import not_negative

from .config import Architecture
from .layers import LIF, LateralInhibition, Linear
from .network import Network


@dataclass
class WinnerTakeAll(Architecture):
    """A spiking output whose neurons inhibit one another, for rules without labels; the loss says how many they are.

    Attributes:
        inhibition: Strength of the inhibition of all neurons by each (threshold - leak); 0: none.
        init_mean: Mean of the initial weights (threshold - leak).
        init_gain: Gain of the initial weights, see `Linear`.
        scale: Integer weight per unit of float weight; None: from the device.
        tau_mem: Time constant of the membranes (s).
        tau_syn: Time constant of the synaptic currents (s).
        dt: Width of a time step, the device's trace interval (s).
        steps: Number of time steps.
    """

    inhibition: float = 0.25
    init_mean: float = 0.05
    init_gain: float = 0.7
    scale: Optional[float] = None  # noqa: UP045 - the form for every OmegaConf
    tau_mem: float = 6e-6
    tau_syn: float = 6e-6
    dt: float = 1.7e-6
    steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative("network.inhibition", self.inhibition)

    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from `seed`; `classes` is the number of neurons."""
        modules: list[Any] = [Linear(inputs, classes, self.init_mean, self.init_gain, scale=self.scale)]
        modules.append(LIF(classes, self.tau_mem, self.tau_syn))
        if self.inhibition:
            modules.append(LateralInhibition(classes, self.inhibition, scale=self.scale))
        return Network(*modules, dt=self.dt, steps=self.steps, seed=seed)
