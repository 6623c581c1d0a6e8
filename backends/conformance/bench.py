"""A device under test: small circuits within its limits, runs, and measures of recordings.

The ideal post-synaptic potential of weight 1, from an event at t = 0, with `d = synaptic_drive`::

    psp(t) = d t exp(-t / tau)                  for tau_mem = tau_syn = tau, peak d tau / e at t = tau

Shape letters: `B` trials, `T` trace samples, `N` neurons, `P` patterns of input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..backend import Backend
from ..circuit import INPUT, Circuit, Population, Projection
from ..pieces import join
from ..recording import DeviceError, Recording, Stimulus
from ..spikes import Spikes
from .tolerances import Tolerances

ATTEMPTS = 6
"""Attempts at a run that fails or loses trials, as a host makes them, before the run counts as failed."""
WIDTH = 8
"""Neurons of a test circuit, if the device has room for them."""
SAMPLES = 20
"""Trace samples of a trial, if the device has room for them."""
ONSET = 3
"""Default trace sample at which a stimulus begins; earlier samples show the rest."""
ROUNDING = 0.2
"""Uncertainty of a response of several samples due to rounding to whole codes (codes)."""
MARGIN = 3.0
"""Drive by simultaneous inputs that shall make a neuron fire, relative to the ideal neuron's threshold."""


class ConformanceError(Exception):
    """A device violates the contract; the text says how."""


class NotApplicableError(Exception):
    """A device lacks a feature, according to its capabilities; the text names the feature."""


def require(condition: bool, text: str) -> None:
    """Raise ConformanceError with a text unless a condition holds."""
    if not condition:
        raise ConformanceError(text)


class Bench:
    """One device and its tolerances.

    Args:
        backend: Device under test.
        tolerances: Allowed deviations of the device from the ideal.

    Attributes:
        caps: Capabilities of the device.
        tau: Time constant of membranes and synapses in the test circuits (s).
        unit: Peak of the ideal response to weight 1 (trace units).
        group: Number of simultaneous inputs of largest weight that make a neuron fire.
        width: Number of neurons of a test circuit.
        samples: Number of trace samples of a trial `T`.
        onset: Time of a stimulus (s).
        clock: Number of trials so far.
        repeats: Number of repeated runs so far.
    """

    def __init__(self, backend: Backend, tolerances: Tolerances) -> None:
        self.backend, self.tolerances = backend, tolerances
        caps = self.caps = backend.capabilities
        low, high = caps.tau_range
        self.tau = min(max(float(f"{3.5 * caps.trace_interval:.1g}"), low), high)
        self.unit = caps.synaptic_drive * self.tau / math.e
        distance = caps.threshold - caps.leak
        self.group = max(1, math.ceil(MARGIN * distance / (self.unit * caps.weight_max)))
        self.width = max(2, min(WIDTH, caps.inputs_per_circuit // self.group, caps.neuron_circuits // 4))
        fitting = int(caps.trial_time / caps.trace_interval + 1e-6)
        self.samples = max(ONSET + 2, min(SAMPLES, caps.max_samples or SAMPLES, fitting))
        self.onset = ONSET * caps.trace_interval
        self.clock, self.repeats = 0, 0
        self._size: int | None = None

    # circuits

    def population(self, name: str, size: int, spiking: bool, merged: int = 1) -> Population:
        """Return a population with the targets that the device recommends."""
        caps = self.caps
        threshold = caps.threshold if spiking else None
        return Population(name, size, merged, caps.leak, threshold, caps.reset, self.tau, self.tau, caps.refractory)

    def layer(self, inputs: int, size: int, spiking: bool = False, merged: int | None = None) -> Circuit:
        """Return a circuit of one population `neurons` with one projection `input->neurons`.

        Args:
            inputs: Number of external inputs.
            size: Number of neurons.
            spiking: Whether the population has a threshold.
            merged: Circuits per neuron; None: as many as the inputs need.

        Raises:
            NotApplicableError: The device is too small for the circuit (only checked if `merged` is None).
        """
        if merged is None:
            merged = -(-inputs // self.caps.inputs_per_circuit)
            self.require_room(inputs, merged, size * merged)
        return Circuit(
            inputs,
            (self.population("neurons", size, spiking, merged),),
            (Projection("input->neurons", INPUT, "neurons", inputs),),
            self.samples,
            self.caps.trace_interval,
        )

    def require_room(self, inputs: int, merged: int, circuits: int) -> None:
        """Raise NotApplicableError unless the device has room for neurons with the given number of inputs."""
        caps = self.caps
        if merged > caps.max_merged or circuits > caps.neuron_circuits:
            raise NotApplicableError(
                f"the device is too small: neurons with {inputs} inputs need {merged} of its circuits each, {circuits} "
                f"in all; it merges up to {caps.max_merged}, and has {caps.neuron_circuits}"
            )
        if caps.max_samples is not None and caps.max_samples < ONSET + 2:
            raise NotApplicableError(f"the device records {caps.max_samples} samples, the suite needs {ONSET + 2}")

    def require_response(self, weight: float, share: float) -> None:
        """Raise NotApplicableError if rounding to codes hides a `share` of the response to an event of a weight."""
        response = self.unit * weight
        if response * share < ROUNDING:
            raise NotApplicableError(
                f"an event of weight {weight:g} moves a membrane by {response:.2g} codes, too few to tell "
                f"{100 * share:.0f} % of it"
            )

    def groups(self) -> Circuit:
        """Return a spiking layer in which each neuron has its own `group` inputs (see `diagonal`)."""
        return self.layer(self.width * self.group, self.width, spiking=True)

    def two_layers(self) -> Circuit:
        """Return `groups` with a readout downstream of its neurons."""
        first = self.groups()
        readout = self.population("readout", self.width - 1, spiking=False)
        merged = first.populations[0].merged
        self.require_room(first.inputs, merged, self.width * merged + self.width - 1)
        return replace(
            first,
            populations=(*first.populations, readout),
            projections=(*first.projections, Projection("neurons->readout", "neurons", "readout", self.width)),
        )

    def diagonal(self, weight: int) -> Tensor:
        """Return weights `[width, width * group]` by which the inputs of group n drive neuron n alone."""
        return torch.kron(torch.eye(self.width), torch.full((1, self.group), float(weight))).to(self.caps.weight_type)

    def configure(self, circuit: Circuit) -> None:
        """Configure the device."""
        self.backend.configure(circuit)
        self._size = self.caps.trials_per_run(circuit.samples, self.caps.stored(circuit))

    # runs

    def run(self, weights: Mapping[str, Tensor], spikes: Spikes, clock: int | None = None) -> Recording:
        """Run trials as a host does: in pieces that fit the trace memory, repeated where they failed.

        Args:
            weights: Integers `[post, pre]` of each projection.
            spikes: Events of the external inputs.
            clock: Place on the clock; None: after all previous runs.

        Raises:
            ConformanceError: The run failed in all attempts.
        """
        position = self.clock if clock is None else clock
        pieces = []
        size = self._size or spikes.samples
        for piece in spikes.split(size) if spikes.samples else [spikes]:
            pieces.append(self._attempt(weights, Stimulus(piece, position)))
            position += piece.samples
        self.clock = max(self.clock, position)
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def _attempt(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        problem = ""
        for attempt in range(ATTEMPTS):
            try:
                recording = self.backend.run(weights, stimulus)
            except DeviceError as error:
                problem = f"raised DeviceError: {error}"
                continue
            finally:
                self.repeats += attempt > 0
            if recording.lost is None or not bool(recording.lost.any()):
                return recording
            problem = f"lost {int(recording.lost.sum())} trials"
        raise ConformanceError(f"a run of {stimulus.spikes.samples} trials {problem}, {ATTEMPTS} times in a row")

    # stimuli

    def trials(self, inputs: int, chosen: list[list[int]], time: float | None = None) -> Spikes:
        """Return `tolerances.trials` rounds of trials, in the p-th of which the inputs `chosen[p]` fire at once."""
        return self.timed([dict.fromkeys(units, self.onset if time is None else time) for units in chosen], inputs)

    def timed(self, patterns: list[dict[int, float]], inputs: int) -> Spikes:
        """Return `tolerances.trials` rounds of trials with one event per input at times (s) `patterns[p]`."""
        times = torch.full((len(patterns), inputs), torch.inf, dtype=torch.float64)
        for row, events in zip(times, patterns, strict=True):
            for unit, time in events.items():
                row[unit] = time
        return Spikes.from_times(times.repeat(self.tolerances.trials, 1))

    def driven(self, order: list[int], time: float | None = None, inputs: int | None = None) -> Spikes:
        """Return trials of `groups`, in the p-th of which `inputs` (None: all) of neuron `order[p]` fire at once."""
        fire = self.group if inputs is None else inputs
        chosen = [list(range(n * self.group, n * self.group + fire)) for n in order]
        return self.trials(self.width * self.group, chosen, time)

    def quiet(self, inputs: int, trials: int | None = None) -> Spikes:
        """Return trials without any event."""
        empty = torch.zeros(0, dtype=torch.int64)
        return Spikes(empty, empty, empty.float(), self.tolerances.trials if trials is None else trials, inputs)

    # measures of recordings

    def codes(self, recording: Recording, name: str = "neurons") -> Tensor:
        """Return codes of a population, float64 `[B, T, N]`.

        Raises:
            NotApplicableError: The device records no traces.
        """
        if not self.caps.traces:
            raise NotApplicableError("the device records no traces")
        require(name in recording.traces, f"the recording holds no traces of {name}, only {list(recording.traces)}")
        return recording.traces[name].double()

    def swings(self, recording: Recording, patterns: int, name: str = "neurons") -> Tensor:
        """Return mean deviations from the rest before the stimulus `[P, T, N]`."""
        codes = self.codes(recording, name)
        mean = rounds(codes, patterns).mean(0)
        return mean - mean[:, : ONSET + 1].mean(1, keepdim=True)

    def psp(self, time: Tensor) -> Tensor:
        """Return the ideal response (trace units) to an event of weight 1, at times after the event (s)."""
        late = time.clamp(min=0)
        return self.caps.synaptic_drive * late * torch.exp(-late / self.tau)

    @property
    def times(self) -> Tensor:
        """Times of the trace samples `[T]` (s)."""
        return torch.arange(self.samples, dtype=torch.float64) * self.caps.trace_interval

    def strengths(self, swings: Tensor) -> Tensor:
        """Return the integer weight that each response `[P, T, N]` is worth, by least squares `[N, P]`."""
        ideal = self.psp(self.times - self.onset)
        worth: Tensor = torch.einsum("ptn,t->np", swings, ideal) / ideal.square().sum()
        return worth

    def first_spikes(self, recording: Recording, name: str = "neurons") -> Tensor:
        """Return each neuron's first spike in each trial (s) `[B, N]`, NaN without one."""
        require(name in recording.spikes, f"the recording holds no spikes of {name}, only {list(recording.spikes)}")
        spikes = recording.spikes[name]
        none = torch.full((spikes.samples * spikes.units,), torch.nan, dtype=torch.float64)
        place = spikes.sample * spikes.units + spikes.unit
        first = none.scatter_reduce(0, place, spikes.time.double(), "amin", include_self=False)
        return first.view(spikes.samples, spikes.units)

    def require_share(self, good: Tensor, text: str) -> str:
        """Require that a share `tolerances.share` of values is good, and return a report."""
        require(good.numel() > 0, f"there is nothing to measure {text}")
        share = float(good.double().mean())
        report = f"{100 * share:.0f} % {text}"
        minimum = self.tolerances.share
        require(share >= minimum - 1e-9, f"{report}; at least {100 * minimum:.0f} % should")
        return report


def within(values: Tensor, bound: float) -> Tensor:
    """Return a mask of values up to `bound`, apart from rounding: times are float32, fits have decimal steps."""
    return values <= bound * (1 + 1e-5) + 1e-12


def rounds(tensor: Tensor, patterns: int) -> Tensor:
    """Return trials `[B, ...]` as `[B / patterns, patterns, ...]`."""
    return tensor.reshape(-1, patterns, *tensor.shape[1:])


def zeros(circuit: Circuit) -> dict[str, Tensor]:
    """Return weights of a circuit that are all 0."""
    sizes = {p.name: p.size for p in circuit.populations}
    return {p.name: torch.zeros(sizes[p.post], p.pre_size, dtype=torch.int8) for p in circuit.projections}


def difference(first: Recording, second: Recording) -> str | None:
    """Return the first difference of two recordings as a text, None without one; the order of spikes is ignored."""
    if list(first.traces) != list(second.traces) or list(first.spikes) != list(second.spikes):
        return "the populations recorded"
    for name, codes in first.traces.items():
        if not torch.equal(codes, second.traces[name]):
            return f"the traces of {name}"
    for name in first.spikes:
        a, b = first.spikes[name].ordered(), second.spikes[name].ordered()
        equal = len(a) == len(b) and all(torch.equal(getattr(a, x), getattr(b, x)) for x in ("sample", "unit", "time"))
        if not equal:
            return f"the spikes of {name}"
    return None
