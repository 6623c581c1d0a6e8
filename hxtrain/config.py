"""Settings of networks, devices and chips: typed, checked, in a form that OmegaConf accepts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import Backend, accepted_settings, create_backend

from .network import LI, LIF, Dropout, Linear, Network

SOFTWARE = "software"
"""Name of the backend that is none: the network runs as its software twin."""


@dataclass
class NetworkConfig:
    """A feed-forward network: inputs, hidden LIF populations, leaky-integrator readout.

    Attributes:
        hidden: size of each hidden population.
        tau_mem, tau_syn: time constants (s).
        dt: width of a time step, the device's trace interval (s).
        steps: number of time steps.
        surrogate, slope: derivative of the spike.
        at_spike: membrane that this derivative sees in a bin with a spike, `threshold` or `trace`.
        dropout: share of hidden neurons silenced per batch.
        init_mean, init_gain: of the initial weights, see `Linear`; the mean is for hidden layers.
        scale: integer weight per unit of float weight of hidden layers; None: from the device.
        autoscale_readout: scale the readout's integer weights so that the largest just fits.
    """

    hidden: List[int] = field(default_factory=lambda: [246])  # noqa: UP006
    tau_mem: float = 6e-6
    tau_syn: float = 6e-6
    dt: float = 1.7e-6
    steps: int = 20
    surrogate: str = "superspike"
    slope: float = 10.0
    at_spike: str = "threshold"
    dropout: float = 0.0
    init_mean: float = 1e-3
    init_gain: float = 0.7
    scale: Optional[float] = None  # noqa: UP045
    autoscale_readout: bool = False

    def __post_init__(self) -> None:
        positive = ("tau_mem", "tau_syn", "dt", "steps", "slope", *(("scale",) if self.scale is not None else ()))
        found = {name: getattr(self, name) for name in positive}
        bad = [f"network.{name}={value} must be positive" for name, value in found.items() if not value > 0]
        if not all(size > 0 for size in self.hidden):
            bad.append(f"network.hidden={list(self.hidden)} must hold positive sizes")
        if not 0 <= self.dropout < 1:
            bad.append(f"network.dropout={self.dropout} must be in 0 <= x < 1")
        if not self.init_gain >= 0:
            bad.append(f"network.init_gain={self.init_gain} must not be negative")
        if bad:
            raise ValueError("; ".join(bad))

    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from `seed`."""
        modules: list[Any] = []
        for size in self.hidden:
            modules.append(Linear(inputs, size, self.init_mean, self.init_gain, scale=self.scale))
            modules.append(LIF(size, self.tau_mem, self.tau_syn, self.surrogate, self.slope, self.at_spike))
            if self.dropout > 0:
                modules.append(Dropout(self.dropout))
            inputs = size
        modules.append(Linear(inputs, classes, gain=self.init_gain, autoscale=self.autoscale_readout))
        modules.append(LI(classes, self.tau_mem, self.tau_syn))
        return Network(*modules, dt=self.dt, steps=self.steps, seed=seed)


@dataclass
class ChipConfig:
    """Which chip individual, for devices that have some.

    Attributes:
        name: serial number; determines the fixed pattern of an emulated chip.
        preset: how imperfect an emulated chip is: ideal, calibrated, uncalibrated.
        seed: seed of an emulated chip's temporal noise.
    """

    name: str = "W66F3"
    preset: str = "calibrated"
    seed: int = 0


@dataclass
class BackendConfig:
    """Which device runs the network.

    Attributes:
        name: a registered backend, or `software` for the twin.
        settings: keyword settings of the backend.
        retries: how often a failed run is repeated.
    """

    name: str = "emulator"
    settings: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    retries: int = 5

    def takes_chip(self) -> bool:
        """Return whether the backend has chip individuals (accepts `chip`, `preset`, `seed`)."""
        return self.name != SOFTWARE and {"chip", "preset", "seed"} <= accepted_settings(self.name)

    def create(self, chip: ChipConfig) -> Backend | None:
        """Return the backend; None for software.

        Raises:
            UnknownBackendError: the name or a setting is not known.
        """
        if self.name == SOFTWARE:
            return None
        individual: dict[str, Any] = {}
        if self.takes_chip():
            individual = {"chip": chip.name, "preset": chip.preset, "seed": chip.seed}
        return create_backend(self.name, **{**individual, **self.settings})
