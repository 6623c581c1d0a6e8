"""Abilities and limits of a device, as data.

Times are in seconds, potentials in the device's trace units (ADC codes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from .circuit import ADDITION, Circuit, Population
from .ranges import COUNT, DURATION, FINITE, POSITIVE, Range, misfits

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
"""Types that weights may have."""
WEIGHT_TYPES = (torch.int8, torch.int16)
"""Types in which integer weights travel; a device uses the first that holds its largest weight."""
LARGEST_WEIGHT = int(torch.iinfo(WEIGHT_TYPES[-1]).max)
"""Largest `Capabilities.weight_max` that the contract carries."""


def weight_type(weight_max: int) -> torch.dtype:
    """Return the smallest integer type for weights up to a magnitude; all code that makes weights calls this."""
    return next(kind for kind in WEIGHT_TYPES if weight_max <= torch.iinfo(kind).max)


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
        sources_per_input: Number of sources that can share a signed input of the neurons of a population
            (`Projection.signed_inputs`); each neuron listens to at most one of them.
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
    sources_per_input: int = field(default=1, metadata={ADDITION: "sharing"})

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


_COUNTS = ("neuron_circuits", "inputs_per_circuit", "max_merged", "sources_per_input")
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
