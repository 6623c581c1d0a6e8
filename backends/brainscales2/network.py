"""A circuit as hxtorch modules, and one run of it.

The modules read the measurement out and skip hxtorch's own simulation of the network; the host computes gradients.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..circuit import INPUT, Circuit, Population
from ..recording import DeviceError, Health
from ..spikes import Spikes
from .calibration import Requirement, calibrated_targets, check_targets
from .readout import CLOCK, Samples, dropped_spikes, frozen, post_processed, to_codes, to_spikes
from .sdk import Sdk

log = logging.getLogger(__name__)

CAPACITANCE = 63
"""Largest membrane capacitance (LSB)."""
SYNAPTIC_GAIN, SYNAPSE_BIAS = 500, 1000
"""Usual codes: hxtorch's default, and the bias that its own training examples use."""


class ChipCalibrationError(DeviceError):
    """hxtorch could not calibrate the chip; the backend does not repeat this by itself, since it takes minutes."""


class RoutingError(ValueError):
    """The router found no way to realise the circuit; repeating does not help."""


@dataclass(frozen=True)
class Operation:
    """How the chip is operated.

    Attributes:
        calibration: Calibration file; None: hxtorch calibrates for the circuit, which takes minutes.
        calibration_cache: Folder in which calix keeps such calibrations; None: the default of calix.
        dram: Whether samples go to the large, slow memory.
        substeps: Steps of hxtorch's grid per trace interval; input spikes move to the start of their step.
        shift: Number of steps by which samples move to earlier times.
        interpolation: Interpolation of samples on the grid, `linear` or `nn` (the nearest sample).
        synaptic_gain: CapMem code of the synaptic input's amplifier; None: the code of the calibration file, or
            `SYNAPTIC_GAIN` without a file.
        synapse_bias: CapMem code of the synapses; None: the code of the calibration file, or `SYNAPSE_BIAS` without a
            file.
        router: Router in place of hxtorch's; None keeps hxtorch's.
    """

    calibration: Path | None
    calibration_cache: Path | None
    dram: bool
    substeps: int
    shift: int
    interpolation: str
    synaptic_gain: int | None
    synapse_bias: int | None
    router: Callable[[Any], Any] | None

    def common_requirements(self) -> list[Requirement]:
        """Return the targets that all neurons share."""
        codes = {"i_synin_gm": self.synaptic_gain, "synapse_dac_bias": self.synapse_bias}
        return [
            Requirement(name, code, "", f"backend.settings.{name}") for name, code in codes.items() if code is not None
        ]


class Measurement(NamedTuple):
    """Data of one run: codes uint8 `[B, T, N]` and spikes by population, lost trials bool `[B]`, health."""

    traces: dict[str, Tensor]
    spikes: dict[str, Spikes]
    lost: Tensor
    health: Health


class HardwareNetwork:
    """A circuit on the chip.

    Args:
        sdk: Software of the chip.
        circuit: Circuit to realise.
        operation: Operating point of the chip.
        period: Time from the start of a trial to that of the next (s).

    Attributes:
        routings: Number of calls of the router.
        timed: Whether the times of trace samples are known; set by the first run.
        counted: Whether dropped events are counted; set by every run.
        checked: Whether the targets of the calibration are known.

    Raises:
        ValueError: The calibration file cannot be read, or was made for other targets.
    """

    def __init__(self, sdk: Sdk, circuit: Circuit, operation: Operation, period: float) -> None:
        self._sdk = sdk
        self._circuit = circuit
        self._operation = operation
        self.routings = 0
        self.timed = self.counted = self.checked = True
        self._experiment = self._make_experiment(period)
        self._instance = self._experiment.default_execution_instance
        self._populations = {p.name: self._make_population(p) for p in circuit.populations}
        sizes = {p.name: p.size for p in circuit.populations}
        self._synapses = {
            p.name: _make_synapse(sdk.spiking, p.pre_size, sizes[p.post], self._experiment) for p in circuit.projections
        }
        self._calibrated_once = operation.calibration is not None

    def _make_experiment(self, period: float) -> Any:
        spiking = self._sdk.spiking
        operation = self._operation
        chosen = {} if operation.router is None else {"hw_routing_func": operation.router}
        step = self._circuit.dt / operation.substeps
        experiment = spiking.Experiment(mock=False, dt=step, **chosen)
        experiment.hw_routing_func = self._watch(experiment.hw_routing_func)
        experiment.inter_batch_entry_wait = math.ceil(period * CLOCK - 1e-6)  # which grenade counts from start to start
        if operation.calibration is not None:
            self._load(experiment.default_execution_instance, operation.calibration)
        elif operation.calibration_cache is not None:
            experiment.default_execution_instance = spiking.ExecutionInstance(
                calib_cache_dir=[operation.calibration_cache]
            )
        instance = experiment.default_execution_instance
        instance.calibrate = _wrap_calibration(instance.calibrate)
        return experiment

    def _load(self, instance: Any, file: Path) -> None:
        """Load a calibration file, and check its targets if it contains them."""
        try:
            instance.load_calib(str(file))
        except Exception as error:
            raise ValueError(
                f"backend.settings.calibration={file} cannot be loaded ({type(error).__name__}: {error}); give a file "
                "of this release of calix: .pkl, or .pbin (a binary coco list)"
            ) from error
        targets = calibrated_targets(instance)
        self.checked = bool(targets)
        check_targets(file, targets, self._circuit.populations, self._operation.common_requirements())

    def _watch(self, router: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a router that counts and times its calls and describes the circuit when it fails."""

        def route(network: Any) -> Any:
            self.routings += 1
            begin = time.perf_counter()
            try:
                routing = router(network)
            except Exception as error:
                raise RoutingError(_unroutable(self._circuit, error)) from error
            log.info("routing %d took %.1f s", self.routings, time.perf_counter() - begin)
            return routing

        return route

    def _make_population(self, p: Population) -> Any:
        spiking = self._sdk.spiking
        operation = self._operation
        mixed = spiking.MixedHXModelParameter
        settings = {
            "leak": p.leak,
            "tau_mem": p.tau_mem,
            "tau_syn": p.tau_syn,
            "i_synin_gm": SYNAPTIC_GAIN if operation.synaptic_gain is None else operation.synaptic_gain,
            "synapse_dac_bias": SYNAPSE_BIAS if operation.synapse_bias is None else operation.synapse_bias,
            "membrane_capacitance": mixed(p.tau_mem, CAPACITANCE),
            "enable_cadc_recording": p in self._circuit.traced,
            "enable_cadc_recording_placement_in_dram": operation.dram,
            "trace_offset": 0.0,
            "trace_scale": 1.0,
            "shift_cadc_to_first": False,
            "cadc_time_shift": operation.shift,
            "interpolation_mode": operation.interpolation,
            "neuron_structure": self._sdk.neuron_of(p.merged),
        }
        base = spiking.LI
        if p.threshold is not None:
            base = spiking.LIF
            settings.update(threshold=p.threshold, reset=p.reset, refractory_time=p.refractory)
        module = _raw(spiking, base, p.name, traced=p in self._circuit.traced)(p.size, self._experiment, **settings)
        module.read_params_from_calibration = False  # it would stumble over files that hxtorch itself has made
        return module

    def run(self, weights: Mapping[str, Tensor], spikes: Spikes) -> Measurement:
        """Run a batch of trials.

        Args:
            weights: Integer weights `[post, pre]` by projection.
            spikes: Input events.

        Raises:
            RoutingError: The router found no solution (first run only).
            DeviceError: The data cannot be assigned to trials.
            Exception: Any error of the chip's software. The network can be run again.
        """
        circuit = self._circuit
        substeps = self._operation.substeps
        steps = circuit.samples * substeps
        grid = spikes.to_grid(circuit.dt / substeps, steps, binary=True)
        merged = int((spikes.bins(circuit.dt / substeps) < steps).sum()) - int(grid.sum())
        try:
            with torch.no_grad():
                for name, synapse in self._synapses.items():
                    synapse.weight.copy_(weights[name])
                handles = self._register(grid)
                self._calibrate_once()
                info = self._sdk.spiking.run(self._experiment, steps)
            return self._collect(handles, spikes.samples, info, merged)
        finally:
            self._clean_up()

    def _register(self, grid: Tensor) -> dict[str, Any]:
        """Call all modules, as hxtorch requires before every run, and return the populations' handles."""
        handles: dict[str, Any] = {}
        for population in self._circuit.populations:
            currents = []
            for projection in self._circuit.projections:
                if projection.post == population.name:
                    source = handles[projection.pre] if projection.pre != INPUT else self._input(grid)
                    currents.append(self._synapses[projection.name](source))
            handles[population.name] = self._populations[population.name](*currents)
        return handles

    def _input(self, grid: Tensor) -> Any:
        """Return a handle of the input; hxtorch needs one for each projection."""
        return self._sdk.spiking.LIFObservables(spikes=grid)

    def _calibrate_once(self) -> None:
        """Let hxtorch calibrate all populations together, with one calibration.

        hxtorch asks the populations one by one whether their parameters have changed, and each says yes once; the first
        yes calibrates all of them. This method therefore asks all populations but one in advance.
        """
        if not self._calibrated_once:
            for module in list(self._populations.values())[1:]:
                module.calib_changed_since_last_run()
            log.info("no calibration file: hxtorch calibrates the chip for this circuit, which takes minutes")
            self._calibrated_once = True

    def _collect(self, handles: Mapping[str, Any], batch: int, info: Any, merged: int) -> Measurement:
        circuit = self._circuit
        substeps = self._operation.substeps
        traces, spikes = {}, {}
        lost = torch.zeros(batch, dtype=torch.bool)
        for p in circuit.populations:
            module = self._populations[p.name]
            if p in circuit.traced:
                traces[p.name] = to_codes(handles[p.name].membrane_cadc, circuit.samples, substeps)
                expected = (batch, circuit.samples, p.size)
                if tuple(traces[p.name].shape) != expected:
                    raise DeviceError(f"traces of {p.name}: expected {expected}, got {tuple(traces[p.name].shape)}")
                lost |= module.samples.incomplete(batch, (circuit.samples - 1) * circuit.dt, circuit.dt)
                self.timed = module.samples.timed
            if p in circuit.spiking:
                spikes[p.name] = to_spikes(module.events, batch, p.size, circuit.duration)
        if not self.timed:
            lost |= frozen(traces.values())
        return Measurement(traces, spikes, lost, self._health(info, merged, int(lost.sum()), batch))

    def _health(self, info: Any, merged: int, lost: int, batch: int) -> Health:
        drops = dropped_spikes(info.health)
        self.counted = drops is not None
        level = logging.WARNING if drops or lost else logging.DEBUG
        text = "run of %d trials: %s events dropped by the crossbar, %d input spikes merged, %d trials not whole"
        log.log(level, text, batch, "unknown" if drops is None else drops, merged, lost)
        log.debug("health: %r, time: %r", info.health, info.time)
        notes: tuple[str, ...] = ()
        if merged:
            step = self._circuit.dt / self._operation.substeps
            notes = (f"{merged} input spikes fell together with another of their input within {step * 1e6:.3g} us",)
        return Health(dropped_spikes=(drops or 0) + merged, notes=notes)

    def _clean_up(self) -> None:
        """Forget the modules that a run, even a failed one, registered; keep placement, routing and calibration.

        hxtorch adds an entry per neuron to the list of recorded ones whenever a weight has changed, and uses the
        first only; without this reset the list grows without end.
        """
        self._experiment.modules.clear()
        self._instance.cadc_neurons.clear()


def _wrap_calibration(calibrate: Callable[[], None]) -> Callable[[], None]:
    """Return hxtorch's calibration of a chip; failures become ChipCalibrationError."""

    def wrapper() -> None:
        try:
            calibrate()
        except Exception as error:
            raise ChipCalibrationError(
                f"hxtorch could not calibrate the chip ({type(error).__name__}: {error}); it is not tried again by "
                "itself, since it takes minutes. Check the targets, or give a file with backend.settings.calibration"
            ) from error

    return wrapper


def _make_synapse(spiking: Any, inputs: int, outputs: int, experiment: Any) -> Any:
    """Return synapses without any transform: integers reach the chip as they are."""

    class Synapse(spiking.Synapse):  # type: ignore[misc]
        def forward_func(self, input: Any) -> Any:
            return spiking.SynapseHandle(graded_spikes=None)

    return Synapse(inputs, outputs, experiment, transform=_as_it_is)


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def _raw(spiking: Any, base: Any, name: str, traced: bool) -> Any:
    """Return a class of hxtorch's neurons `base` that keeps the measurement and simulates nothing.

    After a run, a module has `samples` (see `Samples`) if it is traced, and `events` if it spikes: (clock, trial,
    neuron).
    """
    fires = base is spiking.LIF

    class Raw(base):  # type: ignore[misc]
        def post_process(self, hw_data: Any, runtime: float) -> Any:
            if traced and hw_data.cadc is None:
                raise DeviceError(f"no trace samples of {name} arrived")
            if fires and hw_data.spikes is None:
                raise DeviceError(f"no record of spikes of {name} arrived")
            self.samples = Samples(hw_data.cadc) if traced else None
            self.events = hw_data.spikes.get_data() if fires else None
            return super().post_process(hw_data, runtime)

        def forward_func(self, *input: Any, hw_data: Any = None) -> Any:
            spikes, cadc = post_processed(hw_data, fires)
            measured = {"membrane_cadc": cadc, "membrane_madc": None, "current": None}
            return spiking.Handle(**measured, **({"spikes": spikes} if fires else {}))

    return Raw


def _unroutable(circuit: Circuit, error: Exception) -> str:
    shares = ", ".join(f"{p.name} {p.size} x {p.merged} circuits" for p in circuit.populations)
    inputs = ", ".join(f"{p.name} {p.pre_size} -> {p.post}" for p in circuit.projections)
    return (
        f"the router found no way to realise the circuit ({type(error).__name__}: {error}): {shares}; {inputs}. "
        "Use fewer inputs or neurons (128 inputs need one circuit per neuron), or give a routing function for this "
        "network with backend.settings.hw_routing_func"
    )
