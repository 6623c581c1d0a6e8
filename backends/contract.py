"""The contract between a host and any device: capabilities, circuit, stimulus, recording, backend.

Times are in seconds, potentials in the device's trace units (ADC codes), weights are integers
`[post, pre]`. Shape letters: `B` samples (trials), `T` trace samples, `N` neurons, `E` events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, NamedTuple, overload

import torch
from torch import Tensor
from typing_extensions import Self, TypeIs

from .ranges import COUNT, DURATION, FINITE, POSITIVE, Range, misfits
from .spikes import Spikes

Origin = Literal["measured", "estimated"]
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
"""Types that weights may have."""
WEIGHT_TYPES = (torch.int8, torch.int16)
"""Types in which integer weights travel; a device uses the first that holds its largest weight."""
LARGEST_WEIGHT = int(torch.iinfo(WEIGHT_TYPES[-1]).max)
"""Largest `Capabilities.weight_max` that the contract carries."""
ADDITION: Final = "addition"
"""Key in the metadata of a field that later versions of the contract added: the name of the addition. Such a field has
a default, and a message may lack it (`hxtrain.backends.remote`)."""
CLOCK_END = 2**53
"""End of a device's clock: no trial reaches it (57,000 years of 200 us each)."""


def weight_type(weight_max: int) -> torch.dtype:
    """Return the smallest integer type for weights up to a magnitude; all code that makes weights calls this."""
    return next(kind for kind in WEIGHT_TYPES if weight_max <= torch.iinfo(kind).max)


class DeviceError(RuntimeError):
    """A device failed; the text says what to do next."""


@dataclass(frozen=True)
class Capabilities:
    """Abilities and limits of a device.

    Attributes:
        name: Name of the device family.
        neuron_circuits: Number of neuron circuits.
        inputs_per_circuit: Signed inputs of one circuit; merged circuits add theirs up.
        max_merged: Circuits that can be merged into one neuron.
        weight_max: Largest magnitude of an integer weight.
        trace_bits: Resolution of a trace sample (bits).
        trace_interval: Time between two trace samples (s).
        trace_memory: Memory for the trace samples of one run (bytes); None for no limit.
        trace_channels: Neurons whose samples a run stores, used or not; None: the recorded ones.
        max_samples: Trace samples per trial; None for no limit.
        timestamp_resolution: Resolution of spike times (s).
        synaptic_drive: Slope of a membrane per weight LSB of synaptic current (trace units / s).
        leak: Leak potential that a placement should request (trace units).
        threshold: Threshold that a placement should request (trace units).
        reset: Reset potential that a placement should request (trace units).
        refractory: Refractory period that a placement should request (s).
        tau_range: Smallest and largest time constant that a circuit can request (s).
        speedup: Ratio of biological time to the device's time.
        trial_time: Time from one trial to the next (s).
        power: Power during a run (W); None where unknown.
        traces: Whether membranes are recorded.
        recurrence: Whether populations may project onto themselves.
        forced_reset: Whether membranes and synaptic currents can be reset between trials.
        deterministic: Whether equal seeds and clocks give equal recordings.
        spike_interval: Shortest time between two spikes of a neuron, however short the requested refractory period
            (s); None: the resolution of spike times.
        selective: Whether a device records only what `Circuit.record` requests, so that other neurons take no trace
            memory. False: it may record more, and the trace memory holds every neuron.
        calibration: Whether the device can be calibrated through the contract (`Calibratable`).
        batching: Whether the device takes several runs at once (`Batching`).
        plasticity: Whether the device can change its weights during a run by a rule on the chip. False everywhere: the
            contract has no method yet that hands such a rule over.

    Raises:
        ValueError: Fields are out of range or contradict each other; the text names all of them.
    """

    name: str
    neuron_circuits: int
    inputs_per_circuit: int
    max_merged: int
    weight_max: int
    trace_bits: int
    trace_interval: float
    trace_memory: int | None
    trace_channels: int | None
    max_samples: int | None
    timestamp_resolution: float
    synaptic_drive: float
    leak: float
    threshold: float
    reset: float
    refractory: float
    tau_range: tuple[float, float]
    speedup: float
    trial_time: float
    power: float | None
    traces: bool
    recurrence: bool
    forced_reset: bool
    deterministic: bool
    spike_interval: float | None = None
    selective: bool = field(default=False, metadata={ADDITION: "record"})
    calibration: bool = field(default=False, metadata={ADDITION: "abilities"})
    batching: bool = field(default=False, metadata={ADDITION: "abilities"})
    plasticity: bool = field(default=False, metadata={ADDITION: "abilities"})

    def __post_init__(self) -> None:
        problems = misfits(self, _CAPABILITIES) or self._contradictions()
        problems += [
            f"{n}={getattr(self, n)!r} must be True or False" for n in _FLAGS if type(getattr(self, n)) is not bool
        ]
        if not (isinstance(self.name, str) and self.name):
            problems.append(f"name={self.name!r} must be a text that is not empty")
        if problems:
            raise ValueError(f"capabilities of {ascii(self.name)[:80]}: {'; '.join(problems)}")

    def _contradictions(self) -> list[str]:
        """Return a text for each contradiction between fields that are in range one by one."""
        problems = []
        largest = 2**self.trace_bits - 1
        potentials = {name: getattr(self, name) for name in ("leak", "reset", "threshold")}
        listing = ", ".join(f"{name}={value:g}" for name, value in potentials.items())
        if not all(0 <= value <= largest for value in potentials.values()):
            problems.append(f"{listing} must lie within the codes of {self.trace_bits} trace_bits, 0..{largest}")
        if not max(self.leak, self.reset) < self.threshold:
            problems.append(f"{listing}: leak and reset must be below the threshold")
        if not _ascending(self.tau_range):
            problems.append(f"tau_range={self.tau_range!r} s must be two ascending times > 0")
        if self.timestamp_resolution > self.trace_interval or self.trial_time < self.trace_interval:
            problems.append(
                f"timestamp_resolution={self.timestamp_resolution:g} s <= trace_interval={self.trace_interval:g} s <= "
                f"trial_time={self.trial_time:g} s must hold"
            )
        return problems

    @cached_property
    def weight_type(self) -> torch.dtype:
        """Smallest integers that hold the device's weights, int8 or int16."""
        return weight_type(self.weight_max)

    def most_spikes(self, population: Population, duration: float) -> int:
        """Return the largest number of spikes that a population can give in a trial of some duration (s).

        A device looks for spikes at most `spike_interval` apart and ends a refractory period with the same precision.
        """
        if population.threshold is None:
            return 0
        interval = self.spike_interval or self.timestamp_resolution
        return population.size * (int(duration / max(population.refractory - interval, interval)) + 2)

    def stored(self, circuit: Circuit) -> int:
        """Return the number of neurons of a circuit whose samples take trace memory."""
        return sum(p.size for p in (circuit.traced if self.selective else circuit.populations))

    def trials_per_run(self, samples: int, neurons: int) -> int | None:
        """Return how many trials of `samples` trace samples of some neurons one run can store; None for any number."""
        if self.trace_memory is None or not self.traces or not neurons:
            return None
        channels = neurons if self.trace_channels is None else self.trace_channels
        return int(self.trace_memory // (samples * channels * ((self.trace_bits + 7) // 8)))


_COUNTS = ("neuron_circuits", "inputs_per_circuit", "max_merged")
_FLAGS = (
    *("traces", "recurrence", "forced_reset", "deterministic"),
    *("selective", "calibration", "batching", "plasticity"),
)
_CAPABILITIES = {
    **dict.fromkeys(_COUNTS, COUNT),
    "weight_max": Range(1, LARGEST_WEIGHT, whole=True),
    "trace_bits": Range(1, 8, whole=True),
    "trace_interval": Range(0, 1, above=True, unit="s (the unit is the second)"),
    **dict.fromkeys(("trace_memory", "trace_channels", "max_samples"), Range(1, whole=True, optional=True)),
    **dict.fromkeys(("timestamp_resolution", "trial_time"), DURATION),
    **dict.fromkeys(("synaptic_drive", "speedup"), POSITIVE),
    **dict.fromkeys(("leak", "threshold", "reset"), FINITE),
    "refractory": Range(0, unit="s"),
    "power": Range(0, optional=True, unit="W"),
    "spike_interval": Range(0, above=True, optional=True, unit="s"),
}
"""Ranges of the fields of `Capabilities`: weights fit `WEIGHT_TYPES`, trace codes are uint8."""


def _ascending(times: object) -> bool:
    """Return whether a pair of times is finite, positive and in order."""
    if not isinstance(times, tuple) or len(times) != 2 or not all(time in DURATION for time in times):
        return False
    return bool(times[0] <= times[1])


@dataclass(frozen=True)
class Population:
    """Neurons with common targets (trace units, seconds).

    Attributes:
        name: Unique name.
        size: Number of neurons.
        merged: Circuits per neuron.
        leak: Leak potential (trace units).
        threshold: Threshold (trace units); None for a non-spiking readout.
        reset: Reset potential (trace units).
        tau_mem: Time constant of the membrane (s).
        tau_syn: Time constant of the synaptic current (s).
        refractory: Refractory period (s).
    """

    name: str
    size: int
    merged: int
    leak: float
    threshold: float | None
    reset: float
    tau_mem: float
    tau_syn: float
    refractory: float


@dataclass(frozen=True)
class Projection:
    """All-to-all synapses from `pre` onto the population `post`.

    Attributes:
        name: Unique name.
        pre: Name of the upstream population, or `INPUT`.
        post: Name of the downstream population.
        pre_size: Number of sources.
        first_input: Signed input of the target neurons that source 0 uses.
    """

    name: str
    pre: str
    post: str
    pre_size: int
    first_input: int = 0


INPUT = "input"
"""Name of the external inputs as the source of a projection."""


@dataclass(frozen=True)
class Record:
    """The part of a circuit that a device is asked to record: populations by name.

    A device gives what is requested. It may give more, which the host drops.

    Attributes:
        spikes: Spiking populations whose events are recorded; None: all of them.
        traces: Populations whose membranes are recorded; None: all of them.
    """

    spikes: tuple[str, ...] | None = None
    traces: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Circuit:
    """The populations and projections that placement produces and a device is configured with.

    Attributes:
        inputs: Number of external inputs.
        populations: Populations in the order of their placement.
        projections: Projections in the order of their placement.
        samples: Trace samples per trial `T`; sample k is taken `k * trace_interval` after the start.
        dt: Trace interval (s).
        trial_time: Time from one trial's start to the next one's (s), so short that membranes and synapses may
            still hold traces of the previous trial; None: trials are far apart (`Capabilities.trial_time`).
        forced_reset: Reset all membranes and synaptic currents between the recorded window and the next trial.
        record: Populations to record; all by default.
    """

    inputs: int
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    samples: int
    dt: float
    trial_time: float | None = None
    forced_reset: bool = False
    record: Record = field(default=Record(), metadata={ADDITION: "record"})

    @property
    def duration(self) -> float:
        """Length of a trial (s)."""
        return self.samples * self.dt

    @cached_property
    def spiking(self) -> tuple[Population, ...]:
        """Populations whose spikes are requested, in their order."""
        names = self.record.spikes
        return tuple(p for p in self.populations if p.threshold is not None and (names is None or p.name in names))

    @cached_property
    def traced(self) -> tuple[Population, ...]:
        """Populations whose traces are requested, in their order."""
        names = self.record.traces
        return tuple(p for p in self.populations if names is None or p.name in names)


@dataclass(frozen=True)
class Stimulus:
    """One batch of trials.

    Attributes:
        spikes: External events.
        clock: Number of previous trials of the host (the place of trial 0 on the device's clock). Emulated devices
            derive their temporal noise from it; chips ignore it.

    Raises:
        ValueError: The trials exceed the clock, which runs from 0 to `CLOCK_END`.
    """

    spikes: Spikes
    clock: int = 0

    def __post_init__(self) -> None:
        check_clock(self.clock, self.spikes.samples)


def check_clock(clock: int, trials: int) -> None:
    """Check that a number of trials fits on a device's clock from a place on.

    Raises:
        ValueError: The trials exceed the clock.
    """
    if not isinstance(clock, int) or isinstance(clock, bool) or not 0 <= clock <= CLOCK_END - trials:
        raise ValueError(
            f"clock={clock!r} with {trials} trials must be a whole number in 0..2^53 - {trials}: the number of trials "
            "that were run before"
        )


class Cost(NamedTuple):
    """Time (s) and energy (J; None where unknown) of a run, and how they were obtained."""

    chip_time: float
    energy: float | None
    origin: Origin


@dataclass(frozen=True)
class Health:
    """Disturbances in a run whose recording is still of use."""

    dropped_spikes: int = 0
    retries: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Health) -> Health:
        """Return the sum of two pieces of one batch."""
        return Health(
            self.dropped_spikes + other.dropped_spikes,
            self.retries + other.retries,
            self.notes + other.notes,
        )


@dataclass(frozen=True, repr=False)
class Recording:
    """The result of a run on a device.

    Attributes:
        spikes: Events of each spiking population by name; at least of those in `Circuit.record`.
        traces: Raw codes uint8 `[B, T, N]` of each population by name; at least of those in `Circuit.record`, and empty
            without traces.
        cost: Time and energy.
        health: Losses and retries.
        lost: Trials whose data did not arrive whole, bool `[B]`; None: none. Their data in the recording have no
            meaning. The host repeats these trials, and fails if that does not help.
        clock: `Stimulus.clock` of the recorded run; None: the device does not know it. The host compares it to notice
            an answer to another run.
    """

    spikes: Mapping[str, Spikes]
    traces: Mapping[str, Tensor]
    cost: Cost
    health: Health = field(default_factory=Health)
    lost: Tensor | None = None
    clock: int | None = None

    def __repr__(self) -> str:
        """Describe the recording in a line."""
        spikes = ", ".join(f"{name}: {len(events)} spikes" for name, events in self.spikes.items())
        traces = ", ".join(f"{name}: {list(codes.shape)}" for name, codes in self.traces.items())
        return f"Recording({spikes or 'no spikes'}; traces {traces or 'none'})"


def check_circuit(circuit: Circuit, capabilities: Capabilities) -> None:
    """Check a circuit against the device's limits; backends call it first in `configure`.

    Raises:
        ValueError: The circuit does not fit; the text lists every violation.
    """
    caps = capabilities
    sizes = {p.name: p.size for p in circuit.populations}
    problems = misfits(circuit, _CIRCUIT, "circuit.")
    for population in circuit.populations:
        problems += misfits(population, _POPULATION, f"population {population.name}: ")
    for projection in circuit.projections:
        problems += misfits(projection, _PROJECTION, f"projection {projection.name}: ")
    if problems:
        raise ValueError(f"the circuit does not fit the device {caps.name!r}: {'; '.join(problems)}")
    problems = [text for p in circuit.populations for text in _population_misfits(p, caps)]
    if len(sizes) < len(circuit.populations) or INPUT in sizes:
        problems.append(f"populations need different names, none of them {INPUT!r}, got {[*sizes]}")
    used = sum(p.size * p.merged for p in circuit.populations)
    if used > caps.neuron_circuits:
        problems.append(f"populations need {used} neuron circuits, the device has {caps.neuron_circuits}")
    for projection in circuit.projections:
        problems += _projection_misfits(projection, circuit, caps)
    projections = [projection.name for projection in circuit.projections]
    if len({*projections}) < len(projections):
        problems.append(f"projections need different names, got {projections}")
    if not abs(circuit.dt / caps.trace_interval - 1) <= 0.01:
        problems.append(f"circuit.dt={circuit.dt:.4g} s differs from the trace interval {caps.trace_interval:.4g} s")
    if not 1 <= circuit.samples <= (caps.max_samples or circuit.samples):
        problems.append(f"circuit.samples={circuit.samples} is outside 1..{caps.max_samples or 'any'}")
    if circuit.trial_time is not None and not circuit.trial_time >= circuit.duration:
        problems.append(
            f"circuit.trial_time={circuit.trial_time} s is shorter than the {circuit.duration:.3g} s that are "
            "recorded; record fewer samples"
        )
    if circuit.forced_reset and not caps.forced_reset:
        problems.append("circuit.forced_reset: the device cannot reset membranes between trials")
    problems += _record_misfits(circuit, caps)
    if problems:
        raise ValueError(f"the circuit does not fit the device {caps.name!r}: {'; '.join(problems)}")


_CIRCUIT = {
    "inputs": Range(0, whole=True),
    "samples": Range(whole=True),
    "dt": DURATION,
    "trial_time": Range(0, above=True, optional=True, unit="s"),
}
_POPULATION = {
    **dict.fromkeys(("size", "merged"), Range(whole=True)),
    **dict.fromkeys(("leak", "reset"), FINITE),
    "threshold": Range(optional=True),
    **dict.fromkeys(("tau_mem", "tau_syn"), DURATION),
    "refractory": Range(0, unit="s"),
}
_PROJECTION = {"pre_size": Range(whole=True), "first_input": Range(whole=True)}
"""Ranges of the fields of a circuit on any device; the limits of the device apply in addition."""


def _population_misfits(p: Population, caps: Capabilities) -> list[str]:
    problems = []
    if p.size < 1:
        problems.append(f"population {p.name} has {p.size} neurons")
    if not 1 <= p.merged <= caps.max_merged:
        problems.append(f"population {p.name} merges {p.merged} circuits, the device 1..{caps.max_merged}")
    return problems


def _projection_misfits(projection: Projection, circuit: Circuit, caps: Capabilities) -> list[str]:
    name = projection.name
    populations = {p.name: p for p in circuit.populations}
    missing = {projection.pre, projection.post} - {*populations, INPUT} | {projection.post} - set(populations)
    if missing:
        return [f"projection {name}: there is no population {', '.join(map(repr, sorted(missing)))}"]
    problems = []
    sources = circuit.inputs if projection.pre == INPUT else populations[projection.pre].size
    if projection.pre_size != sources:
        problems.append(f"projection {name} has {projection.pre_size} sources, {projection.pre} has {sources} units")
    rows = populations[projection.post].merged * caps.inputs_per_circuit
    end = projection.first_input + sources
    if projection.first_input < 0 or end > rows:
        problems.append(
            f"projection {name} uses signed inputs {projection.first_input}..{end - 1} of {projection.post}, whose "
            f"neurons have {rows} each; merge more circuits per neuron"
        )
    if projection.pre == projection.post and not caps.recurrence:
        problems.append(f"projection {name}: the device has no recurrence, {projection.pre} cannot project onto itself")
    return problems


def _record_misfits(circuit: Circuit, caps: Capabilities) -> list[str]:
    record = circuit.record
    problems = []
    spiking = {p.name for p in circuit.populations if p.threshold is not None}
    for name, names, available, remedy in (
        ("spikes", record.spikes, spiking, "name spiking populations"),
        ("traces", record.traces, {p.name for p in circuit.populations}, "name populations"),
    ):
        if names is not None and (not isinstance(names, tuple) or len({*names}) < len(names) or {*names} - available):
            available_names = ", ".join(sorted(available)) or "none"
            problems.append(
                f"circuit.record.{name}={names!r}: {remedy} in a tuple, each once, of those there are "
                f"({available_names}); None for all"
            )
    if record.traces and not caps.traces:
        problems.append(
            f"circuit.record.traces={record.traces!r}: the device records no membranes; request none of them, ()"
        )
    if circuit.populations and not circuit.spiking and not circuit.traced:
        problems.append("circuit.record requests neither spikes nor traces of any population; request at least one")
    return problems


def check_run(
    circuit: Circuit | None, weights: Mapping[str, Tensor], stimulus: Stimulus | Sequence[Stimulus], weight_max: int
) -> Circuit:
    """Check the arguments of a backend's `run` or `run_all`, and return the circuit; backends call it first.

    Raises:
        DeviceError: The device is not configured.
        ValueError: Weights are missing, not integers, of the wrong shape or out of range, or the stimulus
            has another number of inputs than the circuit.
    """
    if circuit is None:
        raise DeviceError("the device is not configured; call configure(circuit) before run")
    for batch in [stimulus] if isinstance(stimulus, Stimulus) else stimulus:
        if batch.spikes.units != circuit.inputs:
            raise ValueError(f"stimulus has {batch.spikes.units} inputs, the circuit {circuit.inputs}")
    sizes = {population.name: population.size for population in circuit.populations}
    for projection in circuit.projections:
        matrix = weights.get(projection.name)
        shape = (sizes[projection.post], projection.pre_size)
        if matrix is None or tuple(matrix.shape) != shape or matrix.dtype not in INTEGERS:
            form = "none" if matrix is None else f"{matrix.dtype} {tuple(matrix.shape)}"
            raise ValueError(f"weights of {projection.name}: expected integers {shape}, got {form}")
        if not matrix.numel():
            continue
        low, high = torch.stack(torch.aminmax(matrix)).tolist()
        largest = max(high, -low)
        if largest > weight_max:
            raise ValueError(f"weights of {projection.name} reach {largest}, the device holds up to {weight_max}")
    return circuit


def _marking(method: Callable[..., Any], opens: bool, closes: bool) -> Callable[..., Any]:
    """Return a method that marks its backend: `open` as open, all others as holding an unknown configuration."""

    @wraps(method)
    def call(self: Backend, *arguments: Any, **settings: Any) -> Any:
        if not opens:
            self._configuration = object()
        result = method(self, *arguments, **settings)
        if opens or closes:
            self._closed = closes
        return result

    return call


@dataclass
class Targets:
    """Targets of a calibration, common to all neuron circuits (trace units, seconds).

    Attributes:
        leak: Leak potential (trace units).
        threshold: Threshold (trace units).
        reset: Reset potential (trace units).
        tau_mem: Time constant of the membrane (s).
        tau_syn: Time constant of the synaptic current (s).
        rate: Rate at which neurons with a leak above threshold fire by themselves (1 / s): the leak is then tuned by
            spikes instead of traces, and `leak` is its expected value. None: neurons do not fire by themselves.
    """

    leak: float = 80.0
    threshold: float = 150.0
    reset: float = 80.0
    tau_mem: float = 6e-6
    tau_syn: float = 6e-6
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not (self.rate > 0 and self.leak > self.threshold):
            raise ValueError(
                f"targets.rate={self.rate} needs a leak above threshold, got leak={self.leak}, "
                f"threshold={self.threshold}; raise targets.leak, or leave the rate out"
            )
        for name in ("tau_mem", "tau_syn"):
            if not getattr(self, name) > 0:
                raise ValueError(f"targets.{name}={getattr(self, name)} s must be positive")
        if not self.reset < self.threshold:
            raise ValueError(
                f"targets.reset={self.reset} must be below targets.threshold={self.threshold}, else a neuron never "
                "leaves its threshold; lower the reset"
            )


class Outcome(NamedTuple):
    """Result of a calibration for one parameter.

    Attributes:
        parameter: Name of the parameter.
        unit: Unit of the parameter.
        target: Target value.
        median: Median over the successful circuits, measured afterwards.
        sd: Standard deviation over the successful circuits, measured afterwards.
        failed: Number of circuits that do not reach the target.
    """

    parameter: str
    unit: str
    target: float
    median: float
    sd: float
    failed: int


class Calibratable(ABC):
    """Optional ability of a backend: access to its calibration."""

    @abstractmethod
    def calibrate(
        self,
        targets: Targets,
        file: Path,
        stages: Sequence[str] | None = None,
        seed: int = 0,
        report: Callable[[str], None] = lambda text: None,
    ) -> list[Outcome]:
        """Calibrate the open device, write the result to `file`, and use it from now on.

        Args:
            targets: Targets of the calibration.
            file: Path of the new calibration file.
            stages: Parameters to calibrate, the others stay at common codes; None for all.
            seed: Seed of the temporal noise in the measurements (emulated devices).
            report: Called with the name of each stage before it begins.

        Raises:
            DeviceError: The device is not open, or a target is out of its reach.
            ValueError: A stage is not known.
        """

    @abstractmethod
    def read_reference(self, potential: float, samples: int) -> Tensor:
        """Connect one common potential (trace units) to all ADC channels; codes uint8 `[samples, circuits]`."""


class Interruptible(ABC):
    """Optional ability of a backend: ending a run early."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the run in progress, from another thread: the run raises DeviceError soon; without a run nothing happens.

        The next run is not affected, and the circuit stays configured.
        """


class Batching(ABC):
    """Optional ability of a backend: taking several runs at once, for a device that is far away."""

    @abstractmethod
    def run_all(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Recording | DeviceError]:
        """Run each stimulus in order, as `Backend.run` does; in place of a failed run the list holds its error.

        Raises:
            ValueError: A stimulus or the weights do not fit the circuit; nothing was run.
            DeviceError: The outcome of all runs is unknown.
        """


ABILITIES = {"batching": Batching, "calibration": Calibratable, "interruption": Interruptible}
"""Optional abilities of a backend by name; `Capabilities` holds those that concern more than its caller."""


@overload
def supports(backend: object, ability: Literal["batching"]) -> TypeIs[Batching]: ...
@overload
def supports(backend: object, ability: Literal["calibration"]) -> TypeIs[Calibratable]: ...
@overload
def supports(backend: object, ability: Literal["interruption"]) -> TypeIs[Interruptible]: ...
def supports(backend: object, ability: str) -> bool:
    """Return whether a backend has the methods of an optional ability, so that they can be called.

    A driver from before `Capabilities` held abilities as data does not claim its own there; its class tells.

    Args:
        backend: Backend in question.
        ability: Name of the ability, see `ABILITIES`.
    """
    return isinstance(backend, ABILITIES[ability])


MARKED = {"open": False, "close": True, "configure": False, "calibrate": False}
"""Methods after which a device may hold another circuit, and whether they close the device."""


class Backend(ABC):
    """The driver of a device. An author writes `capabilities`, `open`, `close`, `configure` and `run`.

    Scaling, rounding, clipping, splitting of batches, retries, validation and the injection of
    measurements into the gradient are written once, above this class.

    Attributes:
        FREE_SETTINGS: Names of keyword settings that change no recording, such as the address of a server. A training
            run is continued with other values of them.
    """

    FREE_SETTINGS: ClassVar[frozenset[str]] = frozenset()

    _configuration: object | None = None
    _closed = False

    def __init_subclass__(cls, **settings: Any) -> None:
        """Let `open`, `close`, `configure` and `calibrate` of a subclass set a new mark, see `configuration`."""
        super().__init_subclass__(**settings)
        for name, closes in MARKED.items():
            if name in vars(cls):
                setattr(cls, name, _marking(vars(cls)[name], name == "open", closes))

    @property
    def configuration(self) -> object | None:
        """Mark of the last call, by any caller, that may have changed the circuit of the device; None before any call.

        A caller that finds another mark than after its own `configure` must configure again. A wrapper passes on the
        mark of its inner backend.
        """
        return self._configuration

    @property
    def closed(self) -> bool:
        """Whether the device was closed and not opened again."""
        return self._closed

    def __repr__(self) -> str:
        """Describe the backend in a line, without access to the device."""
        return f"{type(self).__name__}()"

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Limits and properties; known before `open`."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """Return the identity of the individual: at least `backend`, `chip` and `chip_hash`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the device in its current configuration, each with its consequence."""
        return ()

    @property
    def tolerances(self) -> str:
        """Name of the tolerances for checks of the device: `ideal`, `analog` (a calibrated chip) or `uncalibrated`."""
        return "analog"

    @property
    def torch_device(self) -> torch.device:
        """Torch device whose tensors the backend takes without a copy: the GPU of an emulation, else the CPU."""
        return torch.device("cpu")

    @property
    def takes_any_batch(self) -> bool:
        """Whether `run` takes more trials, far apart, than the trace memory holds, with the same recordings."""
        return False

    @abstractmethod
    def open(self) -> None:
        """Connect to the device; vendor packages are imported here. DeviceError says what is missing."""

    @abstractmethod
    def close(self) -> None:
        """Release the device; may be called twice."""

    @abstractmethod
    def configure(self, circuit: Circuit) -> None:
        """Place a circuit. Slow and rare."""

    @abstractmethod
    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        """Run trials with integer weights `[post, pre]` per projection. The hot path.

        All tensors of weights and stimulus are on the CPU, or all on `torch_device`, and so are those of the recording.
        """

    def __enter__(self) -> Self:
        """Open the device."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device, whatever happened."""
        self.close()
