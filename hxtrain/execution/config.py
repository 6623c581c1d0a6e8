"""Settings of networks, devices and chips: typed, checked, in a form that OmegaConf accepts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Optional  # noqa: UP035 - OmegaConf resolves these on every Python

from hxtrain.backends import FAULTS, Backend, FaultyBackend, accepted_settings, create_backend, create_faults
from hxtrain.backends.files import path_part
from hxtrain.checks import check_types
from hxtrain.network import LI, LIF, Dropout, Linear, Network, Recurrent
from hxtrain.network.network import TRACES

from .placement import MAX_RUNS

SOFTWARE = "software"
"""Name for no backend: the network runs as its software twin."""


@dataclass
class NetworkConfig:
    """A network: inputs, hidden LIF populations, leaky-integrator readout.

    Attributes:
        hidden: size of each hidden population.
        recurrent: whether each hidden population also projects onto itself.
        tau_mem: time constant of the membranes (s).
        tau_syn: time constant of the synaptic currents (s).
        dt: width of a time step, the device's trace interval (s).
        steps: number of time steps.
        surrogate: name of the surrogate derivative of the spike.
        slope: inverse width of the surrogate derivative.
        at_spike: membrane that the derivative sees in a bin with a spike, `threshold` or `trace`.
        dropout: share of hidden neurons silenced per batch.
        init_mean: mean of the initial weights of hidden layers, see `Linear`.
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

    def __post_init__(self) -> None:
        check_types(self, "network.")
        optional = [name for name in ("scale", "saturation") if getattr(self, name) is not None]
        positive = ("tau_mem", "tau_syn", "dt", "steps", "slope", *optional)
        values = {name: getattr(self, name) for name in positive}
        bad = [f"network.{name}={value} must be positive" for name, value in values.items() if not value > 0]
        if not all(size > 0 for size in self.hidden):
            bad.append(f"network.hidden={list(self.hidden)} must hold positive sizes")
        if not 0 <= self.dropout < 1:
            bad.append(f"network.dropout={self.dropout} must be in 0 <= x < 1")
        if not self.init_gain >= 0:
            bad.append(f"network.init_gain={self.init_gain} must not be negative")
        for name in ("weight_bits", "trace_bits"):
            value = getattr(self, name)
            if value is not None and value < 1:
                bad.append(f"network.{name}={value} must be at least 1; null for the device's resolution")
        if self.traces not in TRACES:
            bad.append(f"network.traces={self.traces!r} is not known; choose one of {', '.join(TRACES)}")
        if self.recurrent and self.saturation is not None:
            bad.append(
                f"network.saturation={self.saturation} is not known to gradients of recurrent layers; leave it out, or "
                "set network.recurrent=false"
            )
        if self.init_gain_recurrent is not None:
            bad += self._check_recurrent_gain(self.init_gain_recurrent)
        if bad:
            raise ValueError("; ".join(bad))

    def _check_recurrent_gain(self, gain: float) -> list[str]:
        if not self.recurrent:
            return [f"network.init_gain_recurrent={gain} has no effect; set network.recurrent=true, or leave it out"]
        return [] if gain >= 0 else [f"network.init_gain_recurrent={gain} must not be negative"]

    def build(self, inputs: int, classes: int, seed: int) -> Network:
        """Return the network with weights drawn from `seed`."""
        modules: list[Any] = []
        recurrent_gain = self.init_gain if self.init_gain_recurrent is None else self.init_gain_recurrent
        for size in self.hidden:
            modules.append(Linear(inputs, size, self.init_mean, self.init_gain, scale=self.scale))
            modules.append(LIF(size, self.tau_mem, self.tau_syn, self.surrogate, self.slope, self.at_spike))
            if self.recurrent:
                modules.append(Recurrent(size, gain=recurrent_gain, scale=self.scale))
            if self.dropout > 0:
                modules.append(Dropout(self.dropout))
            inputs = size
        modules.append(Linear(inputs, classes, gain=self.init_gain, autoscale=self.autoscale_readout))
        modules.append(LI(classes, self.tau_mem, self.tau_syn))
        return Network(
            *modules,
            dt=self.dt,
            steps=self.steps,
            seed=seed,
            weight_bits=self.weight_bits,
            trace_bits=self.trace_bits,
            traces=self.traces,
            saturation=self.saturation,
        )


@dataclass
class ChipConfig:
    """A chip individual, for backends that have chips.

    Attributes:
        name: serial number; determines an emulated chip's die. Several names, joined by `+`, are a population:
            every trial runs on one of them at random.
        preset: codes in an emulated chip's parameter cells: `ideal` (a die without imperfections), `calibrated`
            (by the procedure of `hxtrain calibrate`), `uncalibrated` (common codes).
        seed: seed of an emulated chip's temporal noise.
        calibration: file of `hxtrain calibrate` that replaces the preset's codes.
        parameters: file of `hxtrain fit`, to emulate the chip that it describes.
        changes: other values of an emulated die's spreads and noise levels, by field (docs/emulator.md).
        faults: shares of `dead_neurons`, `firing_neurons`, `stuck_bits` of an emulated die.
        fault_seed: seed of the choice of faulty neurons and bits.
        decalibrate_time_constants: relative standard deviation of a deliberate spread of the time constants (Cramer et
            al. 2022, self-calibration).
        decalibrate_threshold: relative standard deviation of a deliberate spread of threshold - leak.
        decalibrate_seed: seed of the deliberate spread.
        only: imperfections that an emulated chip keeps; None keeps all.
        correct_capacitance: whether to compensate for the parasitic capacitance of merged circuits.
    """

    name: str = "W66F3"
    preset: str = "calibrated"
    seed: int = 0
    calibration: Optional[str] = None  # noqa: UP045
    parameters: Optional[str] = None  # noqa: UP045
    changes: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    faults: Dict[str, float] = field(default_factory=dict)  # noqa: UP006
    fault_seed: int = 0
    decalibrate_time_constants: float = 0.0
    decalibrate_threshold: float = 0.0
    decalibrate_seed: int = 0
    only: Optional[List[str]] = None  # noqa: UP006, UP045
    correct_capacitance: bool = True

    def __post_init__(self) -> None:
        check_types(self, "chip.")
        for name in self.name.split("+"):
            path_part(name, "chip.name")

    def settings(self, accepted: set[str]) -> dict[str, Any]:
        """Return a backend's keyword settings: name, preset, seed, and all values that differ from the default.

        Args:
            accepted: names of settings that the backend accepts.

        Raises:
            ValueError: the backend does not accept a setting with another value than the default.
        """
        keywords: dict[str, Any] = {"chip": self.name, "preset": self.preset, "seed": self.seed}
        default = ChipConfig()
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("name", "preset", "seed") or value == getattr(default, item.name):
                continue
            if item.name not in accepted:
                raise ValueError(f"chip.{item.name}={value} is not a setting of this backend; leave it out")
            keywords[item.name] = value
        return keywords


@dataclass
class BackendConfig:
    """The device that runs the network.

    Attributes:
        name: name of a registered backend, or `software` for the twin.
        settings: keyword settings of the backend.
        retries: number of repeats of a run that failed or lost trials.
        faults: probabilities of faults of the link, by name, see `hxtrain.backends.FAULTS`.
        fault_seed: seed of the faults.
        trial_time: time from trial to trial (s) for fast inference; None: long enough to keep trials independent.
        forced_reset: whether membranes and synaptic currents are reset between trials.
        max_runs: largest number of runs per sample, for a network that is larger than the device.
        run_timeout: time (s) after which an unfinished run counts as hanging; None: no limit.
    """

    name: str = "emulator"
    settings: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    retries: int = 5
    faults: Dict[str, float] = field(default_factory=dict)  # noqa: UP006
    fault_seed: int = 0
    trial_time: Optional[float] = None  # noqa: UP045
    forced_reset: bool = False
    max_runs: int = MAX_RUNS
    run_timeout: Optional[float] = None  # noqa: UP045

    def __post_init__(self) -> None:
        check_types(self, "backend.")
        if self.max_runs < 1:
            raise ValueError(f"backend.max_runs={self.max_runs} must be at least 1")
        if self.run_timeout is not None and not self.run_timeout > 0:
            raise ValueError(f"backend.run_timeout={self.run_timeout} s must be positive; null for no limit")
        if self.trial_time is not None and not self.trial_time > 0:
            raise ValueError(f"backend.trial_time={self.trial_time} s must be positive; null for trials far apart")
        self.faults = {**dict.fromkeys(FAULTS, 0.0), **self.faults}
        try:
            create_faults(self.faults)
        except ValueError as error:
            raise ValueError(f"backend.faults: {error}") from error
        if self.faulty() and self.name == SOFTWARE:
            names = ", ".join(name for name, p in self.faults.items() if p > 0)
            raise ValueError(
                f"backend.faults: {names} cannot happen in software, where there is no link; "
                "choose a device, or set these probabilities to 0"
            )

    def faulty(self) -> bool:
        """Return whether any fault can happen."""
        return any(p > 0 for p in self.faults.values())

    def takes_chip(self) -> bool:
        """Return whether the backend has chip individuals (accepts `chip`, `preset`, `seed`)."""
        return self.name != SOFTWARE and {"chip", "preset", "seed"} <= accepted_settings(self.name)

    def create(self, chip: ChipConfig) -> Backend | None:
        """Return the backend; None for software.

        Raises:
            UnknownBackendError: no backend has this name, or the backend does not have one of the settings.
        """
        if self.name == SOFTWARE:
            return None
        individual: dict[str, Any] = {}
        if self.takes_chip():
            individual = chip.settings(accepted_settings(self.name))
        backend = create_backend(self.name, **{**individual, **self.settings})
        return FaultyBackend(backend, create_faults(self.faults), self.fault_seed) if self.faulty() else backend
