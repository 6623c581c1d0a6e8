"""The device: settings, limits, connection, and recovery from failed runs."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backend import Backend
from ..capabilities import Capabilities
from ..checks import check_circuit, check_run
from ..chips import BRAINSCALES2
from ..circuit import INPUT, Circuit, Population
from ..recording import Cost, DeviceError, Health, Recording, Stimulus
from ..spikes import Spikes
from .calibration import infeasible, requirements
from .network import ChipCalibrationError, HardwareNetwork, Measurement, Operation
from .sdk import HINT, Sdk, connect, disconnect, listed, load_sdk

log = logging.getLogger(__name__)

INTERVAL = {"sram": BRAINSCALES2.trace_interval, "dram": 6e-6}
"""Time between two CADC samples (s), by the memory that stores them."""
STORED = {"sram": 100, "dram": 204800}
"""Number of samples of one trial that the memory holds."""
MARGIN = 7e-6
"""Time around a trial in which samples are also stored (s)."""
TRIAL_TIME = {"sram": BRAINSCALES2.trial_time, "dram": 2e-3}
"""Usual time from trial to trial (s)."""
REST = 5
"""Number of time constants until membranes have forgotten a trial; neurons are not reset between trials."""
RUN_BYTES = 4 * 2**20
"""Trace samples of one run (bytes). The chip has no such limit, but hxtorch stores a run in dense tensors: about 50
times as much, with 4 steps per sample."""
ATTEMPTS = 3
"""Number of attempts of `configure`."""
MISFITS = (AttributeError, TypeError, NameError, ImportError, NotImplementedError)
"""Errors of software that does not fit, which no repetition mends."""

PLACED = 16
"""Number of circuits that stay placed and routed; the parts of a network larger than the chip take turns."""


class PlacedCircuit(NamedTuple):
    """A circuit on the chip, with its network, the time from trial to trial (s), and warnings for the user."""

    circuit: Circuit
    network: HardwareNetwork
    trial_time: float
    warnings: tuple[str, ...]


class BrainScaleS2Backend(Backend):
    """A BrainScaleS-2 chip that this process reaches through hxtorch.

    Args:
        calibration: File to load, `.pkl` (calix) or a binary coco list; None: hxtorch calibrates for the circuit.
            Loading a `.pkl` file runs code: use only your own.
        calibration_cache: Folder in which calix keeps the calibrations that it makes.
        memory: Memory of trace samples: `sram` (one every 1.7 us, 94 per trial) or `dram` (one every 6 us, long
            trials).
        leak: Leak potential of circuits (trace units).
        threshold: Threshold of circuits (trace units).
        reset: Reset potential of circuits (trace units).
        refractory: Refractory period of circuits (s).
        trial_time: Time from trial to trial (s); None: 200 us with `sram`, 2 ms with `dram`.
        synaptic_drive: Slope of a membrane per weight LSB (trace units / s); None: the value of the published chip.
        i_synin_gm: CapMem code of the synaptic inputs.
        synapse_dac_bias: CapMem code of the synapses.
        substeps: Steps per trace sample; input spikes move to the start of their step.
        trace_shift: Time by which samples move to earlier times (s), in whole sub-steps.
        interpolation: Interpolation between samples: `linear` or `nn` (the nearest sample).
        hw_routing_func: Router in place of hxtorch's: a function, or its name `package.module:function`, which `open`
            imports once the chip is connected.
        reconnect_after: Number of failed runs in a row after which the backend connects anew.

    Raises:
        ValueError: A setting is not known or out of range, or a file is missing.
    """

    def __init__(
        self,
        calibration: str | os.PathLike[str] | None = None,
        calibration_cache: str | os.PathLike[str] | None = None,
        memory: str = "sram",
        leak: float = BRAINSCALES2.leak,
        threshold: float = BRAINSCALES2.threshold,
        reset: float = BRAINSCALES2.reset,
        refractory: float = BRAINSCALES2.refractory,
        trial_time: float | None = None,
        synaptic_drive: float | None = None,
        i_synin_gm: int | None = None,
        synapse_dac_bias: int | None = None,
        substeps: int = 4,
        trace_shift: float = 0.0,
        interpolation: str = "linear",
        hw_routing_func: str | Callable[[Any], Any] | None = None,
        reconnect_after: int = 2,
    ) -> None:
        _choice("memory", memory, tuple(INTERVAL))
        _choice("interpolation", interpolation, ("linear", "nn"))
        file = None if calibration is None else _require_file(Path(calibration))
        _check_router(hw_routing_func)
        for name, value in (("substeps", substeps), ("reconnect_after", reconnect_after)):
            if value < 1:
                raise ValueError(f"backend.settings.{name}={value} must be at least 1")
        for name, amount in (("trial_time", trial_time), ("synaptic_drive", synaptic_drive)):
            if amount is not None and not amount > 0:
                raise ValueError(f"backend.settings.{name}={amount} must be positive; null for the usual one")
        interval = INTERVAL[memory]
        self._operation = Operation(
            calibration=file,
            calibration_cache=None if calibration_cache is None else Path(calibration_cache),
            dram=memory == "dram",
            substeps=substeps,
            shift=round(trace_shift / interval * substeps),
            interpolation=interpolation,
            synaptic_gain=i_synin_gm,
            synapse_bias=synapse_dac_bias,
            router=None,
        )
        self._router = hw_routing_func
        self._capabilities = replace(
            BRAINSCALES2,
            name="brainscales2",
            trace_interval=interval,
            trace_memory=RUN_BYTES,
            trace_channels=None,
            max_samples=int(((STORED[memory] - 1) * interval - MARGIN) / interval * (1 + 1e-9)),
            synaptic_drive=synaptic_drive or BRAINSCALES2.synaptic_drive,
            leak=leak,
            threshold=threshold,
            reset=reset,
            refractory=refractory,
            trial_time=trial_time or TRIAL_TIME[memory],
            recurrence=False,
            forced_reset=False,
            selective=True,
        )
        self._reconnect_after = reconnect_after
        self._sdk: Sdk | None = None
        self._individual: dict[str, str] = {"chip": "not connected", "chip_hash": "unknown"}
        self._calibration_hash = "" if file is None else content_hash(file)
        self._current: PlacedCircuit | None = None
        self._placed: dict[Circuit, PlacedCircuit] = {}
        self._failures = 0

    @property
    def capabilities(self) -> Capabilities:
        """The chip's limits, in the chosen memory and at the chosen operating point."""
        return self._capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        """Return chip, calibration and versions of the software.

        Chip and versions are known from the first `open` on, also after `close`.
        """
        file = self._operation.calibration
        calibration = "by hxtorch" if file is None else f"{file.name} {self._calibration_hash}"
        return {"backend": "brainscales2", "calibration": calibration, **self._individual}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Uncertainties of the configured circuit."""
        return () if self._current is None else self._current.warnings

    def open(self) -> None:
        """Import the chip's software, check it, and connect.

        Raises:
            DeviceError: The software is missing or does not fit, or there is no connection.
            ValueError: The calibration file has changed, or the routing function cannot be imported.
        """
        if self._sdk is not None:
            return
        self._require_calibration()
        sdk = load_sdk(calibrates=self._operation.calibration is None)
        chip = connect(sdk, self)
        try:
            self._operation = replace(self._operation, router=_import_router(self._router))
        except ValueError:
            disconnect(sdk, self)
            raise
        self._sdk = sdk
        self._individual = self._identify(chip, sdk)
        atexit.register(self.close)
        log.info("connected to chip %s", chip)

    def _identify(self, chip: str, sdk: Sdk) -> dict[str, str]:
        """Return the identity of the connected individual."""
        file = self._operation.calibration
        content = b"by hxtorch" if file is None else file.read_bytes()
        digest = hashlib.sha256(chip.encode() + b"\0" + content).hexdigest()[:16]
        versions = {f"version_{name}": version for name, version in sdk.versions.items()}
        return {"chip": chip, "chip_hash": digest, **versions}

    def close(self) -> None:
        """Release the chip and forget the configuration."""
        sdk = self._sdk
        self._sdk = None
        self._current, self._failures = None, 0
        self._placed.clear()
        atexit.unregister(self.close)
        if sdk is not None:
            disconnect(sdk, self)

    def configure(self, circuit: Circuit) -> None:
        """Place, calibrate and route a circuit by a run without spikes, and check the neurons at rest.

        A circuit of an earlier call is still placed and is used again.

        Raises:
            ValueError: The circuit does not fit, the calibration file has other targets, or the router refuses.
            DeviceError: The device is not open, the run without spikes or a calibration fails, or the chip's software
                does not fit.
        """
        sdk = self._require_sdk()
        self._current = None
        self._check(circuit)
        placed = self._placed.pop(circuit, None) or self._realise(sdk, circuit)
        self._placed[circuit] = placed
        if len(self._placed) > PLACED:
            del self._placed[next(iter(self._placed))]
        self._current = placed
        self._failures = 0

    def _realise(self, sdk: Sdk, circuit: Circuit) -> PlacedCircuit:
        """Build the network and run it without spikes; repeat this after an error that may be temporary."""
        self._require_calibration()
        period = self._period(circuit)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                network = HardwareNetwork(sdk, circuit, self._operation, period)
                quiet = network.run(_no_weights(circuit), _no_spikes(circuit))
                if bool(quiet.lost.any()):
                    raise DeviceError("its trace samples did not all arrive")
                break
            except (ValueError, ChipCalibrationError):
                raise
            except MISFITS as error:
                raise DeviceError(
                    f"the chip's software does not do what is asked of it ({_describe(error)}): a release that was not "
                    f"met before (found: {listed(sdk.versions)}). {HINT}"
                ) from error
            except Exception as error:
                if attempt == ATTEMPTS:
                    raise DeviceError(
                        f"a run without spikes failed {ATTEMPTS} times, last: {_describe(error)}; check calibration, "
                        "connection and chip"
                    ) from error
                log.warning("a run without spikes failed (%s); connecting anew", _describe(error))
                self._reconnect(sdk)
        log.info("configured on chip %s: %d routing(s)", self._individual["chip"], network.routings)
        warnings = tuple(self._findings(network, circuit, quiet, period))
        return PlacedCircuit(circuit, network, period, warnings)

    def _require_calibration(self) -> None:
        """Check that the calibration file has not changed since the backend was made.

        Raises:
            ValueError: The file has changed.
        """
        file = self._operation.calibration
        if file is not None and content_hash(_require_file(file)) != self._calibration_hash:
            raise ValueError(
                f"backend.settings.calibration={file} has changed since this backend was made, and `identity` names "
                "the former content; make the backend anew"
            )

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials with integer weights.

        Raises:
            DeviceError: The device is not open or configured, or the run failed; it can be repeated.
        """
        sdk = self._require_sdk()
        current = self._current
        circuit = check_run(
            None if current is None else current.circuit, weights, stimulus, self._capabilities.weight_max
        )
        assert current is not None  # there is a circuit
        batch = stimulus.spikes.samples
        measurement = self._run(sdk, current, weights, stimulus) if batch else _nothing(circuit)
        chip_time = batch * current.trial_time
        energy = None if self._capabilities.power is None else chip_time * self._capabilities.power
        lost = measurement.lost if bool(measurement.lost.any()) else None
        return Recording(
            measurement.spikes, measurement.traces, Cost(chip_time, energy, "estimated"), measurement.health, lost
        )

    def _run(self, sdk: Sdk, used: PlacedCircuit, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Measurement:
        try:
            measurement = used.network.run(weights, stimulus.spikes)
        except Exception as error:
            self._recover(sdk, error)
            raise DeviceError(f"the run failed: {_describe(error)}") from error
        self._failures = 0
        return measurement

    def _recover(self, sdk: Sdk, error: Exception) -> None:
        """Prepare the next run after an error: connect anew after `reconnect_after` failures in a row."""
        self._failures += 1
        log.warning("run failed, number %d in a row: %s", self._failures, _describe(error))
        if self._failures % self._reconnect_after == 0:
            self._reconnect(sdk)

    def _reconnect(self, sdk: Sdk) -> None:
        """Release the chip and connect anew.

        Raises:
            DeviceError: There is no connection, or another chip answers.
        """
        disconnect(sdk, self)
        chip = connect(sdk, self)
        former = self._individual["chip"]
        if chip != former:
            disconnect(sdk, self)
            raise DeviceError(f"after connecting anew chip {chip} answers instead of {former}; close and open again")

    def _require_sdk(self) -> Sdk:
        if self._sdk is None:
            raise DeviceError("the chip is not open; call open() first, or use the backend in a with statement")
        return self._sdk

    def _period(self, circuit: Circuit) -> float:
        """Return the time from a trial's start to the next one's (s): the requested one, else long enough to forget."""
        if circuit.trial_time is not None:
            return circuit.trial_time
        slowest = max(max(p.tau_mem, p.tau_syn) for p in circuit.populations)
        return max(self._capabilities.trial_time, circuit.duration + REST * slowest)

    def _check(self, circuit: Circuit) -> None:
        """Check a circuit against the limits of chip and hxtorch.

        Raises:
            ValueError: The circuit exceeds limits; the text gives a value, a limit and a remedy for each.
        """
        caps = self._capabilities
        if caps.max_samples is not None and circuit.samples > caps.max_samples:
            alternative = "" if self._operation.dram else ", or backend.settings.memory=dram for longer, slower records"
            raise ValueError(
                f"network.steps={circuit.samples} exceeds the {caps.max_samples} trace samples of a trial, beyond "
                f"which traces freeze; use at most {caps.max_samples}{alternative}"
            )
        check_circuit(circuit, caps)
        misfits = infeasible("chip", self._operation.common_requirements())
        for population in circuit.populations:
            misfits += infeasible(population.name, requirements(population))
            misfits += self._misfits_of(population, circuit)
        if misfits:
            lines = "\n".join(f"  {i}. {text}" for i, text in enumerate(misfits, 1))
            raise ValueError(f"the chip cannot realise the circuit:\n{lines}")

    def _misfits_of(self, p: Population, circuit: Circuit) -> list[str]:
        """Return a text for each unsupported projection onto a population."""
        problems = []
        limit = self._capabilities.inputs_per_circuit
        names = [population.name for population in circuit.populations]
        upstream = {INPUT, *(q.name for q in circuit.populations[: names.index(p.name)] if q.threshold is not None)}
        incoming = [projection for projection in circuit.projections if projection.post == p.name]
        if not incoming:
            problems.append(f"{p.name}: nothing projects onto it, and hxtorch cannot place it; give it inputs")
        for projection in incoming:
            if projection.pre not in upstream:
                problems.append(
                    f"{projection.name}: {projection.pre} is not a spiking population before {p.name}; "
                    "only feed-forward networks are supported (network.recurrent=false)"
                )
        fan_in = sum(projection.pre_size for projection in incoming)
        if fan_in > p.merged * limit:
            problems.append(
                f"{p.name}: fan-in {fan_in} exceeds {p.merged * limit}; merge {-(-fan_in // limit)} circuits"
            )
        return problems

    def _findings(self, network: HardwareNetwork, circuit: Circuit, quiet: Measurement, period: float) -> list[str]:
        """Return findings of a run without spikes, and uncertainties."""
        notes = []
        if not network.checked:
            notes.append(
                f"calibration {self._operation.calibration} does not tell what it was made for and cannot be checked "
                "against the circuit; give a .pkl file"
            )
        if not network.timed:
            notes.append("this hxtorch does not tell when samples were taken: only traces that freeze count as lost")
        if not network.counted:
            notes.append(
                "the health counters of this grenade cannot be read: events that the chip drops are not counted"
            )
        if network.routings != 1:
            notes.append(f"the network was routed {network.routings} times, once was expected")
        if circuit.trial_time is None and period > self._capabilities.trial_time:
            notes.append(
                f"trials follow {period * 1e6:.4g} us after one another instead of "
                f"{self._capabilities.trial_time * 1e6:.4g}, so that membranes come to rest"
            )
        if circuit.trial_time is not None:
            notes.append(
                "the chip starts sampling anew for each trial, which takes a time that is not known: where the time "
                "asked for leaves too little for it behind the recorded window, the true time from trial to trial is "
                "longer"
            )
        if not circuit.traced:
            notes.append("no membranes are recorded: lost trials and neurons at rest cannot be seen")
        for p in circuit.populations:
            notes += _at_rest(p, quiet)
        return notes


def _at_rest(p: Population, quiet: Measurement) -> list[str]:
    """Return a text for each kind of unrest of a population without input."""
    problems = []
    if p.name in quiet.traces:
        codes = quiet.traces[p.name][0]
        stuck = ((codes == 0) | (codes == 255)).all(0)
        if bool(stuck.any()):
            problems.append(f"{int(stuck.sum())} of {p.size} neurons of {p.name} rest outside the range of the CADC")
    if p.name in quiet.spikes:
        active = torch.unique(quiet.spikes[p.name].unit).numel()
        if active:
            problems.append(f"{active} of {p.size} neurons of {p.name} fire without input; calibrate the chip")
    return problems


def _no_weights(circuit: Circuit) -> dict[str, Tensor]:
    sizes = {p.name: p.size for p in circuit.populations}
    return {p.name: torch.zeros(sizes[p.post], p.pre_size, dtype=torch.int8) for p in circuit.projections}


def _no_spikes(circuit: Circuit) -> Spikes:
    empty = torch.zeros(0)
    return Spikes.from_events(empty.long(), empty.long(), empty, 1, circuit.inputs)


def _nothing(circuit: Circuit) -> Measurement:
    """Return the measurement of an empty batch."""
    empty = torch.zeros(0)
    traces = {p.name: torch.zeros(0, circuit.samples, p.size, dtype=torch.uint8) for p in circuit.traced}
    spikes = {p.name: Spikes.from_events(empty.long(), empty.long(), empty, 0, p.size) for p in circuit.spiking}
    return Measurement(traces, spikes, torch.zeros(0, dtype=torch.bool), Health())


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"backend.settings.{name}={value!r} is not known; choose {' or '.join(choices)}")


def _require_file(file: Path) -> Path:
    if not file.is_file():
        raise ValueError(f"backend.settings.calibration={file} does not exist; give a file, or null to calibrate")
    return file


def content_hash(file: Path) -> str:
    """Return the content hash of a file, 16 hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _check_router(router: object) -> None:
    """Check that the router is a function or the name of one, without importing it."""
    if router is None or callable(router):
        return
    module, _, name = router.partition(":") if isinstance(router, str) else ("", "", "")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(
            f"backend.settings.hw_routing_func={router!r} names no function; write package.module:function"
        )


def _import_router(router: str | Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """Return the routing function, imported by its name if necessary.

    Raises:
        ValueError: The name cannot be imported, or is no function.
    """
    if not isinstance(router, str):
        return router
    module, _, name = router.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's may raise anything
        raise ValueError(
            f"backend.settings.hw_routing_func={router!r} cannot be imported ({type(error).__name__}: {error}); "
            "write package.module:function"
        ) from error
    if not callable(function):
        raise ValueError(f"backend.settings.hw_routing_func={router!r} is a {type(function).__name__}, not a function")
    router_function: Callable[[Any], Any] = function
    return router_function
