"""Adapter of the emulated chip to the device contract."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hxtrain.emulator import (
    CIRCUITS,
    FABRICATED,
    IDEAL,
    ROWS_PER_CIRCUIT,
    Chip,
    Decalibration,
    EmulatedChip,
    Events,
    FittedChip,
    Group,
    InterruptedRunError,
    Layout,
    Wiring,
    make_faults,
    uniform_targets,
)
from hxtrain.emulator.calibration import Calibration, Result, calibrate, calibration_for, shipped_chips, shipped_for
from hxtrain.emulator.dynamics import assign_circuits, circuit_targets, noise_level

from .abilities import Batching, Calibratable, Interruptible, Outcome, Targets
from .backend import Backend
from .capabilities import Capabilities
from .checks import check_circuit, check_run
from .chip_settings import EmulatorSettings, takes_settings
from .chips import BRAINSCALES2
from .circuit import INPUT, Circuit, Projection
from .circuit_map import CircuitMap
from .parameters import NeuronParameters
from .recording import Cost, DeviceError, Health, Recording, Stimulus
from .spikes import Spikes
from .work import Work, tell

CAPABILITIES = replace(
    BRAINSCALES2,
    name="emulator",
    deterministic=True,
    selective=True,
    calibration=True,
    batching=True,
    sources_per_input=64,
)
"""The physical chip's limits."""


class EmulatorBackend(Backend, Batching, Calibratable, Interruptible):
    """An emulated chip individual, or a population of them.

    Args:
        settings: Keyword settings, see `EmulatorSettings`: `EmulatorBackend(chip="W66F3", preset="ideal")`.

    Raises:
        ValueError: A setting is not known or out of range, or settings exclude each other.
    """

    @takes_settings(EmulatorSettings)
    def __init__(self, settings: EmulatorSettings) -> None:
        decalibration = None
        if settings.decalibrate_time_constants or settings.decalibrate_threshold:
            decalibration = Decalibration(
                settings.decalibrate_time_constants, settings.decalibrate_threshold, settings.decalibrate_seed
            )
        self._preset = settings.preset
        self._correct_capacitance = settings.correct_capacitance
        self._avoid_failures = settings.avoid_failures
        self._may_calibrate = settings.calibrate
        self._calibration = None if settings.calibration is None else Calibration.load(Path(settings.calibration))
        self._warnings: tuple[str, ...] = ()
        self._circuit: Circuit | None = None
        self._places = np.zeros((1, 0), np.int64)
        spreads = (IDEAL if settings.preset == "ideal" else FABRICATED).changed(**settings.changes)
        self._individuals: list[Chip | FittedChip] = []
        if settings.parameters is not None:
            self._individuals = [_fitted(NeuronParameters.load(Path(settings.parameters)))]
            self._preset = "fitted"
        else:
            die_faults = make_faults(settings.faults, settings.fault_seed)
            imperfections = None if settings.only is None else tuple(settings.only)
            for name in settings.chips:
                self._individuals.append(Chip(name, spreads, None, die_faults, decalibration, imperfections))
        self._used: list[Calibration] = []
        self._programmed = False
        drawn = settings.chips if settings.parameters is None else []
        self._notes = tuple(note for note in map(_unusual_name, drawn) if note)
        self._reads = 0
        torch_device = settings.device or "cpu"
        self.emulated = EmulatedChip(
            self._individuals,
            settings.seed,
            settings.substeps,
            _engine(settings.engine, torch_device),
            torch_device,
            trial_time=CAPABILITIES.trial_time,
        )
        self._capabilities = replace(
            CAPABILITIES,
            trace_memory=settings.trace_memory,
            spike_interval=CAPABILITIES.trace_interval / settings.substeps,
            calibration=len(self._individuals) == 1 and isinstance(self._individuals[0], Chip),
        )

    def __repr__(self) -> str:
        """Describe chip and preset in a line, without a calibration."""
        return f"{type(self).__name__}({'+'.join(chip.name for chip in self._individuals)}, {self._preset})"

    @property
    def capabilities(self) -> Capabilities:
        """The physical chip's limits."""
        return self._capabilities

    @property
    def tolerances(self) -> str:
        """Tolerances of the preset; those of a calibrated chip with a calibration file."""
        if self._calibration is not None or self._preset == "calibrated":
            return "analog"
        return "ideal" if self._preset == "ideal" else "uncalibrated"

    @cached_property
    def torch_device(self) -> torch.device:
        """The GPU that emulates the chip, else the CPU."""
        return self.emulated.recording_device

    @cached_property
    def takes_any_batch(self) -> bool:
        """True: a recording depends on the place of a trial on the clock, not on its run (decision 0003)."""
        return True

    @property
    def identity(self) -> Mapping[str, str]:
        """Return name, preset and content hash of the chip (of all chips of a population).

        The codes identify a calibrated chip, and they depend on the targets of a circuit. Before the first circuit, the
        identity has the codes that the package contains for the usual targets; a chip without such codes is identified
        by its die alone.
        """
        chips, used = (self.emulated.chips, self._used) if self._programmed else self._shipped()
        hashes = [chip.hash for chip in chips]
        expected = self._calibrates() and len(used) < len(chips)
        if expected:
            hashes = [hashlib.sha256(f"die of {code_hash}".encode()).hexdigest()[:16] for code_hash in hashes]
        whole = hashes[0] if len(chips) == 1 else hashlib.sha256("+".join(hashes).encode()).hexdigest()[:16]
        names = {
            "backend": "emulator",
            "chip": "+".join(chip.name for chip in chips),
            "chip_hash": whole,
            "preset": self._preset,
        }
        if expected:
            names["calibration"] = "made when a circuit is configured"
        elif len(used) == 1:
            names["calibration"] = f"{used[0].hash} of {used[0].date}"
        return names

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about unusual names and uncalibrated neurons of the configured circuit, with the consequences."""
        return (*self._notes, *self._warnings)

    @property
    def circuit_map(self) -> CircuitMap:
        """Circuits of the configured neurons, and those that missed a target in the calibration of any individual."""
        chips, used = (self.emulated.chips, self._used) if self._programmed else self._shipped()
        missed: dict[str, npt.NDArray[np.bool_]] = {}
        for die, calibration in zip(self._dies(), used, strict=False):
            for parameter, mask in calibration.missed(die.only).items():
                missed[parameter] = missed.get(parameter, np.zeros(CIRCUITS, bool)) | mask
        populations: tuple[str, ...] = ()
        places = np.zeros((1, 0), np.int64)
        if self._circuit is not None:
            populations = tuple(p.name for p in self._circuit.populations for _ in range(p.size))
            places = self._places
        codes = used[0].codes.by_circuit() if len(used) == 1 else {}
        return CircuitMap("+".join(chip.name for chip in chips), CIRCUITS, populations, places, missed, codes)

    def open(self) -> None:
        """Check that the calibration file, if there is one, belongs to this chip; the codes depend on the circuit.

        Raises:
            ValueError: The file belongs to another chip.
        """
        if self._calibration is not None:
            for chip in self._dies():
                self._calibration.require_chip(chip)

    def close(self) -> None:
        """Forget the configuration."""
        self._circuit = None

    def configure(self, circuit: Circuit) -> None:
        """Translate a circuit to the chip's layout.

        Raises:
            ValueError: The circuit exceeds the chip, or has other targets than the chip's calibration.
        """
        check_circuit(circuit, CAPABILITIES)
        layout = replace(_layout(circuit), corrected_capacitance=self._correct_capacitance)
        self._use_codes(circuit_targets(layout))
        if self._avoid_failures:
            layout = replace(layout, avoided=self._failed_circuits())
            self._use_codes(circuit_targets(layout))
        self._places = assign_circuits(layout)
        self._warnings = self._check_calibrations(layout, circuit)
        self.emulated.trial_time = circuit.trial_time or CAPABILITIES.trial_time
        self.emulated.configure(layout, circuit.samples)
        self._circuit = circuit

    def _calibrates(self) -> bool:
        """Return whether the individuals get codes of a calibration."""
        return self._preset == "calibrated" or self._calibration is not None

    def _shipped(self) -> tuple[list[Chip | FittedChip], list[Calibration]]:
        """Return the individuals with the codes that the package contains, and their calibrations."""
        if not self._calibrates():
            return self._individuals, []
        self.open()
        usual = uniform_targets()
        dies = self._dies()
        calibrations = [self._calibration or shipped_for(chip, usual) for chip in dies]
        used = [calibration for calibration in calibrations if calibration is not None]
        if len(used) < len(dies):
            return self._individuals, []
        return [replace(chip, codes=c.codes) for chip, c in zip(dies, used, strict=True)], used

    def _dies(self) -> list[Chip]:
        """Return the individuals that are drawn at random, not fitted."""
        return [individual for individual in self._individuals if isinstance(individual, Chip)]

    def _use_codes(self, targets: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Give every chip the codes that suit preset and targets."""
        self.open()
        used = list[Calibration]()
        chips = list[Chip | FittedChip]()
        for individual in self._individuals:
            if isinstance(individual, Chip) and self._calibrates():
                if self._calibration is not None:
                    self._calibration.require_chip(individual)
                calibration = self._calibration or calibration_for(
                    individual, targets, _make_report(individual.name), self._may_calibrate
                )
                used.append(calibration)
                individual = replace(individual, codes=calibration.codes)
            chips.append(individual)
        self.emulated.chips = chips
        self._used = used
        self._programmed = True

    def _failed_circuits(self) -> frozenset[int]:
        """Return the circuits that missed a target in the calibration of any individual."""
        failed = (used.failed_circuits(die.only) for die, used in zip(self._dies(), self._used, strict=False))
        return frozenset[int]().union(*failed)

    def _check_calibrations(self, layout: Layout, circuit: Circuit) -> tuple[str, ...]:
        """Refuse codes for other targets, and return the failures in the calibration of circuits in use."""
        circuits = self._places
        names = [f"{p.name}[{i}]" for p in circuit.populations for i in range(p.size)]
        spiking = np.concatenate([np.full(p.size, p.threshold is not None) for p in circuit.populations])
        failures: list[str] = []
        for individual, used in zip(self._individuals, self._used, strict=False):
            in_use = circuits >= 0
            everywhere = np.broadcast_to(spiking, circuits.shape)[in_use]
            used.require_targets(circuit_targets(layout), circuits[in_use], everywhere)
            only = individual.only if isinstance(individual, Chip) else None
            remedy = "" if self._avoid_failures else "; chip.avoid_failures=true places neurons on other circuits"
            failures += [f"chip {used.chip}: {line}{remedy}" for line in used.failures(circuits, names, only)]
        return tuple(failures)

    def calibrate(
        self,
        targets: Targets,
        file: Path,
        stages: Sequence[str] | None = None,
        seed: int = 0,
        report: Callable[[str], None] = lambda text: None,
    ) -> list[Outcome]:
        """Calibrate the chip, write the result to `file`, and use it from now on.

        Raises:
            DeviceError: The backend holds a population or a fitted chip.
            ValueError: A stage is not known, or a target out of reach.
        """
        chip = self._individuals[0]
        if not self._capabilities.calibration or not isinstance(chip, Chip):
            raise DeviceError("only a single emulated chip can be calibrated; name one with `chip`")
        cell_targets = uniform_targets(targets.leak, targets.threshold, targets.reset, targets.tau_mem, targets.tau_syn)
        calibration, results = calibrate(chip, cell_targets, stages, seed, report, targets.rate)
        calibration.save(file)
        self._calibration = calibration
        self._circuit = None
        self._use_codes(cell_targets)
        return [_outcome(result) for result in results]

    def read_reference(self, potential: float, samples: int) -> Tensor:
        """Return codes of a common potential on all ADC channels, uint8 `[samples, 512]`."""
        if not self._programmed:
            self._use_codes(uniform_targets())
        self._reads += 1
        return torch.from_numpy(self.emulated.read_reference(potential, samples, self._reads))

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials on the emulated chip."""
        circuit = check_run(self._circuit, weights, stimulus, CAPABILITIES.weight_max)
        return self._run(circuit, weights, [stimulus])[0]

    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Run stimuli one after the other, or at once if their trials are consecutive and independent.

        A recording depends on the place of a trial on the clock, not on its run (decision 0003).
        """
        circuit = check_run(self._circuit, weights, stimuli, CAPABILITIES.weight_max)
        follow = all(b.clock == a.clock + a.spikes.samples for a, b in pairwise(stimuli))
        if follow and circuit.trial_time is None and stimuli:
            return [*self._run(circuit, weights, stimuli)]
        return [self._run(circuit, weights, [stimulus])[0] for stimulus in stimuli]

    def interrupt(self) -> None:
        """End the run in progress; on the CPU, where runs can take long."""
        self.emulated.interrupt()

    def _run(self, circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording]:
        """Run stimuli with consecutive trials at once."""
        pieces = [stimulus.spikes for stimulus in stimuli]
        spikes = pieces[0] if len(pieces) == 1 else Spikes.cat(pieces)
        try:
            raw = self.emulated.run(
                [weights[projection.name] for projection in circuit.projections],
                Events(spikes.sample, spikes.unit, spikes.time),
                spikes.samples,
                stimuli[0].clock,
            )
        except InterruptedRunError as error:
            raise DeviceError(str(error)) from error
        torch_device = spikes.time.device
        traced = circuit.traced
        codes = torch.split(raw.codes.to(torch_device), [p.size for p in traced], dim=2)
        traces = dict(zip((p.name for p in traced), codes, strict=True))
        spikes_by_name = _by_population(
            circuit, Events(*(part.to(torch_device) for part in raw.spikes)), spikes.samples
        )
        return [
            Recording(
                spikes=spikes_by_name
                if len(stimuli) == 1
                else {name: part.stretch(first, last) for name, part in spikes_by_name.items()},
                traces={name: part[first:last] for name, part in traces.items()},
                cost=_cost(circuit, last - first),
                health=Health(dropped_spikes=int(raw.dropped[first:last].sum())),
                clock=stimuli[0].clock + first,
            )
            for first, last in pairwise(accumulate((piece.samples for piece in pieces), initial=0))
        ]


def _make_report(name: str) -> Callable[[str, int, int], None]:
    """Return a report of a chip's calibration."""
    origin = (
        "" if name in shipped_chips() else f", which is none of those that come with the package{_did_you_mean(name)}"
    )
    task = f"calibrating chip {name}{origin}, for these targets; it takes up to a minute and is kept for later"
    return lambda stage, n_done, stages: tell(Work(task, stage, n_done, stages))


def _unusual_name(name: str) -> str:
    """Return a note on a name that resembles that of a chip of the package; an empty text for any other name."""
    meant = _did_you_mean(name)
    return f"chip {name} is another individual than those that come with the package{meant}" if meant else ""


def _did_you_mean(name: str) -> str:
    """Return a question that suggests the chip of the package with a similar name; an empty text without one."""
    shipped = shipped_chips()
    if name in shipped:
        return ""
    close = get_close_matches(name.upper(), shipped, n=1, cutoff=0.75)
    return f" (did you mean chip={close[0]}?)" if close else ""


def _engine(name: str, device: str) -> str:
    """Return the emulator's engine that a setting means on a torch device.

    Raises:
        ValueError: The setting is not known, or the device is not available.
    """
    name = {"compiled": "fast", "stepwise": "readable"}.get(name, name)  # names of older versions
    if name not in ("fast", "readable"):
        raise ValueError(f"engine={name!r} is not known; choose 'fast' or 'readable'")
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used: {text}; use cpu, or install its torch") from error
    if name == "readable":
        return name
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"engine='fast' runs on cpu and cuda, not on device={device!r}; use engine='readable'")
    if kind == "cuda" and find_spec("triton") is None:
        raise ValueError(
            f"engine='fast' needs Triton on device={device!r}, which comes with torch for CUDA on Linux; install "
            "triton, or use engine='readable'"
        )
    return "cpu" if kind == "cpu" else "gpu"


def _cost(circuit: Circuit, trials: int) -> Cost:
    chip_time = trials * (circuit.trial_time or CAPABILITIES.trial_time)
    return Cost(chip_time, chip_time * (CAPABILITIES.power or 0.0), "estimated")


def _layout(circuit: Circuit) -> Layout:
    """Return the chip's layout of a circuit."""
    index = {population.name: i for i, population in enumerate(circuit.populations)}
    traced = circuit.traced
    groups = tuple(
        Group(p.size, p.merged, p.leak, p.threshold, p.reset, p.tau_mem, p.tau_syn, p.refractory, p in traced)
        for p in circuit.populations
    )
    wirings = tuple(_wiring(projection, index) for projection in circuit.projections)
    gap = None if circuit.trial_time is None else circuit.trial_time - circuit.duration
    return Layout(circuit.inputs, groups, wirings, gap, circuit.forced_reset)


def _fitted(p: NeuronParameters) -> FittedChip:
    """Return the chip that measured parameters describe."""
    rows, signs, neurons = p.strength.shape
    if rows != p.merged * ROWS_PER_CIRCUIT or p.merged * neurons > CIRCUITS:
        raise ValueError(
            f"parameters are of {neurons} neurons with {p.merged} circuits and {rows} inputs each; an emulated chip "
            f"has {CIRCUITS} circuits with {ROWS_PER_CIRCUIT} inputs each"
        )
    noise = IDEAL.changed(
        membrane_noise=noise_level(p.membrane_noise, float(np.median(p.tau_mem))),
        cadc_noise=p.trace_noise,
        threshold_noise=p.threshold_noise,
        spike_jitter=p.spike_jitter,
        synapse_saturation=p.saturation,
        rails=p.rails,
    )
    return FittedChip(
        name=f"{p.device.get('chip', 'unknown')}-fit",
        hash=p.hash,
        merged=p.merged,
        leak=p.leak,
        reset=p.reset,
        threshold=p.threshold,
        tau_mem=p.tau_mem,
        tau_syn=p.tau_syn,
        synapse=p.strength.reshape(p.merged, ROWS_PER_CIRCUIT, signs, neurons),
        noise=noise,
    )


def _outcome(result: Result) -> Outcome:
    good = result.measured[result.success]
    failed = int((~result.success).sum())
    if not len(good):
        return Outcome(result.parameter, result.unit, result.target, float("nan"), float("nan"), failed)
    return Outcome(result.parameter, result.unit, result.target, float(np.median(good)), float(good.std()), failed)


def _wiring(projection: Projection, index: Mapping[str, int]) -> Wiring:
    source = None if projection.pre == INPUT else index[projection.pre]
    return Wiring(index[projection.post], projection.pre_size, projection.first_input, source, projection.signed_inputs)


def _by_population(circuit: Circuit, spikes: Events, batch: int) -> dict[str, Spikes]:
    firsts = accumulate((population.size for population in circuit.populations), initial=0)
    spiking = [(p, first) for p, first in zip(circuit.populations, firsts, strict=False) if p.threshold is not None]
    requested = circuit.spiking
    if len(spiking) == len(requested) == 1:  # the others have no threshold
        (population, first) = spiking[0]
        return {
            population.name: Spikes.trusted(spikes.sample, spikes.unit - first, spikes.time, batch, population.size)
        }
    by_name = {}
    for population, first in spiking:
        if population not in requested:
            continue
        mask = (spikes.unit >= first) & (spikes.unit < first + population.size)
        chosen = Spikes.trusted(
            spikes.sample[mask], spikes.unit[mask] - first, spikes.time[mask], batch, population.size
        )
        by_name[population.name] = chosen
    return by_name
