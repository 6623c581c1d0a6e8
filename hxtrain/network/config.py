"""Settings of networks: typed, checked, in a form that OmegaConf accepts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import Registry
from hxtrain.checks import Rule, check_types, list_of, not_negative, one_of, optional

from .layers import LI, LIF, Dropout, LateralInhibition, Linear, Recurrent
from .network import Network


@dataclass
class Architecture(ABC):
    """Base of the settings of a network. A field is a setting, `network.<field>`."""

    def __post_init__(self) -> None:
        check_types(self, "network.")

    @abstractmethod
    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from a seed.

        Args:
            inputs: Number of network inputs.
            classes: Number of classes, the size of the readout.
            seed: Seed of the weights.
        """


RULES: Mapping[str, Rule] = {
    "hidden": list_of(LIF.RULES["size"]),
    **{name: LIF.RULES[name] for name in ("tau_mem", "tau_syn", "refractory", "surrogate", "slope", "at_spike")},
    **{name: Network.RULES[name] for name in ("dt", "steps", "weight_bits", "trace_bits", "traces", "saturation")},
    "dropout": Dropout.RULES["p"],
    "init_mean": Linear.RULES["mean"],
    "init_mean_output": Linear.RULES["mean"],
    "init_gain": Linear.RULES["gain"],
    "init_gain_recurrent": optional(Recurrent.RULES["gain"]),
    "scale": Linear.RULES["scale"],
    "output": one_of(("membranes", "spikes")),
    "inhibition": not_negative,
}
"""Rule of each setting of `NetworkConfig`: that of the component that it configures."""


@dataclass
class NetworkConfig(Architecture):
    """A network: inputs, hidden LIF populations, and an output.

    Attributes:
        hidden: size of each hidden population.
        output: what the output is: `membranes` of a leaky-integrator readout, or `spikes` of a LIF population, for a
            loss that reads the same (`loss=spike_count`).
        recurrent: whether each hidden population also projects onto itself.
        inhibition: strength of the inhibition by which the neurons of each hidden population silence one another
            (threshold - leak), see `LateralInhibition`; 0: none.
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
        refractory: refractory period of spiking neurons (s), on a device and in software; None: that of the device, and
            in software a soft reset without a refractory period, as published. Recurrent networks that also run in
            software should have that of the device, 2e-6 (docs/model.md).
        dt: width of a time step, the device's trace interval (s).
        steps: number of time steps.
        surrogate: name of the surrogate derivative of the spike.
        slope: inverse width of the surrogate derivative.
        at_spike: membrane that the derivative sees in a bin with a spike, `threshold` or `trace`.
        dropout: share of hidden neurons silenced per batch.
        init_mean: mean of the initial weights of hidden layers, see `Linear`.
        init_mean_output: mean of the initial weights of the output, which a spiking output needs to fire.
        init_gain: gain of the initial weights, see `Linear`.
        init_gain_recurrent: gain of the initial recurrent weights, whose mean is 0; None: `init_gain`.
        scale: integer weight per unit of float weight of hidden layers; None: from the device.
        autoscale_readout: scale the readout's integer weights so that the largest just fits.
        weight_bits: resolution of the magnitude of integer weights (bits, the sign aside); None: the device's.
        trace_bits: resolution of membranes (bits); None: the device's.
        traces: membranes of hidden layers that gradients see: `measured`, or `spikes_only` for the model's response to
            the measured spikes (docs/resolution.md).
        saturation: current at which a synaptic input of the device saturates (weight LSB, as `hxtrain fit` measures
            it), for the gradients; None: gradients assume linear synapses, as published (decision 0010). It has no
            effect in software, where synapses are linear.
    """

    hidden: List[int] = field(default_factory=lambda: [246])  # noqa: UP006
    recurrent: bool = False
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
    init_gain_recurrent: Optional[float] = None  # noqa: UP045
    scale: Optional[float] = None  # noqa: UP045
    autoscale_readout: bool = False
    weight_bits: Optional[int] = None  # noqa: UP045
    trace_bits: Optional[int] = None  # noqa: UP045
    traces: str = "measured"
    saturation: Optional[float] = None  # noqa: UP045
    output: str = "membranes"
    inhibition: float = 0.0
    init_mean_output: float = 0.0
    refractory: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = [*self._violations(), *self._contradictions()]
        if faults:
            raise ValueError("; ".join(faults))

    def _contradictions(self) -> Iterator[str]:
        """Yield a text on each pair of settings that exclude each other."""
        if self.inhibition and self.recurrent:
            yield (
                f"network.inhibition={self.inhibition} and network.recurrent=true: a population has one projection "
                "onto itself; leave one out (recurrent weights can learn to inhibit, too)"
            )
        if self.output == "spikes" and self.autoscale_readout:
            yield (
                "network.autoscale_readout=true is for the membranes of a readout, whose scale is free, but "
                "network.output=spikes has a threshold; leave one out"
            )
        if self.init_gain_recurrent is not None and not self.recurrent:
            yield (
                f"network.init_gain_recurrent={self.init_gain_recurrent} has no effect; set network.recurrent=true, or "
                "leave it out"
            )

    def _violations(self) -> Iterator[str]:
        """Yield a text on each setting that breaks the rule of its component."""
        for name, rule in RULES.items():
            try:
                rule(f"network.{name}", getattr(self, name))
            except ValueError as error:
                yield str(error)

    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from `seed`; see `Architecture.build` for the arguments."""
        return Network(*self.modules(inputs, classes), seed=seed, **self.options())

    def options(self) -> dict[str, Any]:
        """Return the settings of `Network`, but its seed."""
        names = ("dt", "steps", "weight_bits", "trace_bits", "traces", "saturation")
        return {name: getattr(self, name) for name in names}

    def modules(self, inputs: int, classes: int) -> list[Any]:
        """Return the modules of the network; see `Architecture.build` for the arguments."""
        modules: list[Any] = []
        recurrent_gain = self.init_gain if self.init_gain_recurrent is None else self.init_gain_recurrent
        for size in self.hidden:
            modules.append(Linear(inputs, size, self.init_mean, self.init_gain, scale=self.scale))
            modules.append(self._spiking(size))
            if self.recurrent:
                modules.append(Recurrent(size, gain=recurrent_gain, scale=self.scale))
            if self.inhibition:
                modules.append(LateralInhibition(size, self.inhibition, scale=self.scale))
            if self.dropout > 0:
                modules.append(Dropout(self.dropout))
            inputs = size
        modules.append(Linear(inputs, classes, self.init_mean_output, self.init_gain, autoscale=self.autoscale_readout))
        is_readout = self.output == "membranes"
        modules.append(LI(classes, self.tau_mem, self.tau_syn) if is_readout else self._spiking(classes))
        return modules

    def _spiking(self, size: int) -> LIF:
        return LIF(size, self.tau_mem, self.tau_syn, self.surrogate, self.slope, self.at_spike, self.refractory)


NETWORKS: Registry[type[Architecture]] = Registry("networks", "network", Architecture)
"""Settings of networks by name."""
