"""A device in the loop: everything above a backend that is written once.

Float weights become integers, batches are split by the device's trace memory, networks larger than the
device run in parts, runs are retried and checked, and codes become membranes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from hxtrain.backends import (
    INPUT,
    Backend,
    Batching,
    Circuit,
    DeviceError,
    Health,
    Recording,
    Spikes,
    Stimulus,
    check_recording,
    join,
    nothing,
)
from hxtrain.checks import flag, optional, real, whole
from hxtrain.network import Activity, LayerActivity, Network
from hxtrain.network.activity import layer_activity
from hxtrain.network.twin import hidden_membranes
from hxtrain.neurons import Codes, Fired, GridEvents, Saturation
from hxtrain.neurons.engines import cpu as compiled

from .drift import LIMIT, DriftMonitor
from .partition import Part, merge, replayed, spikes_of
from .placement import MAX_RUNS, Plan, place
from .repeats import Arrivals
from .timeout import HangingError, Watch

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Device:
    """Drives one backend for one network.

    Args:
        backend: the device.
        retries: how often a run that failed or lost trials is repeated before the error is passed on.
        drift_limit: change of the resting potentials from which on recalibration is due (trace units, rms);
            an estimate, see `hxtrain.execution.drift`.
        trial_time: time from trial to trial (s) for fast inference, in which a trial may meet what the one before
            left behind; None: trials are far apart.
        forced_reset: reset membranes and synaptic currents between trials.
        max_runs: runs of the device that a sample may take if the network is larger than it.
        run_timeout: time (s) after which a run that has not come back counts as hanging, and is given up; runs are then
            in a thread of their own. None: the host waits for as long as it takes.

    Attributes:
        clock: trials run so far, those of all parts; part of a checkpoint, since emulated noise follows from it.
        plan: the placement; None before a network is attached.
        waited: wall-clock time (s) in which the host waited for the device.
        warnings: what a user should know of the device as it is configured for the network.
    """

    def __init__(
        self,
        backend: Backend,
        retries: int = 5,
        drift_limit: float = LIMIT,
        trial_time: float | None = None,
        forced_reset: bool = False,
        max_runs: int = MAX_RUNS,
        run_timeout: float | None = None,
    ) -> None:
        if not isinstance(backend, Backend):
            raise TypeError(
                f"Device takes a Backend, not {backend!r:.60}; make one with hxtrain.backends.create_backend(name)"
            )
        max_runs, retries = whole("max_runs", max_runs), whole("retries", retries)
        trial_time, forced_reset = optional(real)("trial_time", trial_time), flag("forced_reset", forced_reset)
        drift_limit = real("drift_limit", drift_limit)
        if max_runs < 1:
            raise ValueError(f"max_runs={max_runs} must be at least 1")
        if retries < 0:
            raise ValueError(f"retries={retries} must not be negative")
        if trial_time is not None and not trial_time > 0:
            raise ValueError(f"trial_time={trial_time} s must be positive; None for trials far apart")
        self.trial_time, self.forced_reset, self.max_runs = trial_time, forced_reset, max_runs
        self.backend, self.retries, self.drift_limit = backend, retries, drift_limit
        self._watch = None if run_timeout is None else Watch(run_timeout, backend.capabilities.name)
        self.clock, self.waited = 0, 0.0
        self.drift = DriftMonitor(drift_limit)
        self.plan: Plan | None = None
        self.scales: list[float] = []
        self.warnings: tuple[str, ...] = ()
        self._configured: tuple[Circuit, object | None] | None = None

    def __repr__(self) -> str:
        """Describe backend and placed network in a line."""
        return f"Device({self.backend!r}, {'no network' if self.plan is None else repr(self.plan)})"

    def __enter__(self) -> Self:
        """Open the device."""
        with _as_device_error("be opened"):
            self.backend.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
        self.backend.close()

    def place(self, net: Network) -> Plan:
        """Plan the network and configure the device with it, with each of its parts if there are several.

        Raises:
            PlacementError: the network does not fit; the device is not touched.
        """
        plan = place(net, self.backend.capabilities, self.trial_time, self.forced_reset, self.max_runs)
        self.plan = None
        self.warnings = self._try_parts(plan)
        self.plan, self.drift = plan, DriftMonitor(self.drift_limit)
        return plan

    def _try_parts(self, plan: Plan) -> tuple[str, ...]:
        """Configure every part, the first one last, and return the device's warnings."""
        found: dict[str, list[int]] = {}
        numbered = list(enumerate((part.circuit for part in plan.parts), 1))
        self._configured = None
        for number, circuit in reversed(numbered):
            self._configure(circuit)
            for text in self.backend.warnings:
                found.setdefault(text, []).insert(0, number)
        return tuple(
            text if len(runs) == len(plan.parts) else f"run{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}: {text}"
            for text, runs in found.items()
        )

    def _configure(self, circuit: Circuit) -> None:
        """Configure the device with a circuit, unless it is, and nobody has configured or closed it since.

        Raises:
            DeviceError: it was closed.
        """
        if self.backend.closed:
            raise DeviceError(
                "the device is closed; open it again (`with device:`, or device.backend.open()), or attach the network "
                "to another one"
            )
        if self._configured != (circuit, self.backend.configuration):
            self._configured = None
            with self._waiting(), _as_device_error("be configured"):
                self.backend.configure(circuit)
            self._configured = circuit, self.backend.configuration

    def run(self, weights: list[Tensor], spikes: Spikes, events: GridEvents | None = None) -> Activity:
        """Run a batch and return what was measured, in the model's units and the precision of the weights.

        With `spikes_only` (`Plan.resolution`), membranes of hidden layers are the model's, of the measured spikes and
        the weights as sent. The contract has no way to ask for fewer traces: the device records all of them, and the
        host looks at no more of those than the first samples, which tell of drift.

        Args:
            weights: float weights of each projection.
            spikes: input events.
            events: the same on the time grid, if at hand.

        Raises:
            DeviceError: a run failed on every attempt.
        """
        plan = self._placed()
        integers, self.scales = plan.quantise(weights)
        recording = self.record(integers, spikes)
        circuit, device, layers = plan.circuit, weights[0].device, list[LayerActivity]()
        dtype = weights[0].dtype
        fired = {name: _fired(found.to(device), circuit).to(dtype) for name, found in recording.spikes.items()}
        modelled: dict[str, Tensor] = {}
        if plan.resolution.spikes_only:
            received = events or GridEvents(spikes.to(device), circuit.dt, circuit.samples)
            modelled = hidden_membranes(circuit, plan.as_sent(integers, self.scales), received, fired)
        for population, unit in zip(circuit.populations, plan.trace_units(self.scales), strict=True):
            name = population.name
            membrane: Tensor | Codes
            if name in modelled:
                membrane = modelled[name].to(dtype)
            else:
                codes = plan.resolution.round_codes(recording.traces[name], plan.capabilities)
                # those of hidden layers are seldom looked at as membranes, but for gradients, which take codes
                kept = name in fired and device.type == codes.device.type == "cpu" and dtype == torch.float32
                membrane = Codes(codes, unit) if kept else membranes(codes.to(device), unit).to(dtype)
            layers.append(layer_activity(fired.get(name), membrane, recording.spikes.get(name)))
        return Activity(layers, recording.cost, recording.health)

    def weight_limits(self) -> list[float | None]:
        """Return by projection the largest float weight that is not clipped; None where the scale adapts."""
        return self._placed().weight_limits()

    def saturations(self, current: float) -> list[Saturation]:
        """Return by layer, in the units of its weights at their last run, where its synaptic inputs saturate.

        Args:
            current: at which one does (weight LSB).
        """
        per_circuit = self._placed().capabilities.inputs_per_circuit
        return [
            Saturation(current / scale, per_circuit, plan.projection.first_input)
            for plan, scale in zip(self._placed().projections, self.scales, strict=True)
        ]

    def record(self, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run integer weights; splits the batch as the device needs and joins the pieces.

        Of a network in parts, the whole batch runs through one part before the next one is configured.

        Raises:
            DeviceError: trials are missing after the last attempt.
        """
        plan = self._placed()
        where = self.backend.torch_device if len(plan.parts) == 1 else "cpu"
        integers = {name: matrix.to(where) for name, matrix in integers.items()}
        spikes = spikes.to(where)
        if spikes.samples == 0:
            return nothing(plan.circuit, spikes.time.device)
        if len(plan.parts) == 1:
            self._configure(plan.parts[0].circuit)
            return self._watched(self._record_part(plan.parts[0], integers, spikes))
        measured, found = {INPUT: spikes}, list[tuple[Part, Recording]]()
        for part in plan.parts:
            self._configure(part.circuit)
            if part.source not in measured:
                measured[part.source] = replayed(spikes_of(part.source, found), plan.circuit.duration)
            found.append((part, self._record_part(part, part.weights(integers), measured[part.source])))
        return self._watched(merge(plan.circuit, found))

    def _record_part(self, part: Part, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run a batch through the configured part; its trials follow those before on the clock."""
        size = part.trials_per_run(self._placed().capabilities)
        if not size or (self.backend.takes_any_batch and part.circuit.trial_time is None):
            size = max(spikes.samples, 1)
        stimuli, clock = [], self.clock
        for piece in spikes.split(size):
            stimuli.append(Stimulus(piece, clock))
            clock += piece.samples
        pieces = []
        for stimulus, first in zip(stimuli, self._run_ahead(integers, stimuli), strict=True):
            pieces.append(self._attempt(part.circuit, integers, stimulus, first))
            self.clock += stimulus.spikes.samples
        return pieces[0] if len(pieces) == 1 else join(pieces)

    def _run_ahead(
        self, integers: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> Sequence[Recording | DeviceError | None]:
        """Return what came of the first attempt at each run if the device takes several at once, else None for each."""
        backend = self.backend
        if not isinstance(backend, Batching) or len(stimuli) == 1:
            return [None] * len(stimuli)
        try:
            return self._call(lambda: backend.run_all(integers, stimuli), sum(s.spikes.samples for s in stimuli))
        except HangingError:
            raise
        except DeviceError as error:
            return [error, *[None] * (len(stimuli) - 1)]

    def _watched(self, recording: Recording) -> Recording:
        """Note in a recording's health when recalibration has become due.

        Trials that follow closely without a reset do not begin at rest, but where the trial before them ended.
        """
        circuit = self._placed().circuit
        if circuit.trial_time is not None and not circuit.forced_reset:
            return recording
        note = self.drift.add(recording)
        return recording if note is None else replace(recording, health=recording.health + Health(notes=(note,)))

    @contextmanager
    def sharing(self, first: int, total: int) -> Iterator[None]:
        """Run a part of `total` trials that several devices share, from trial `first` on: each keeps its place."""
        parts, before = len(self._placed().parts), self.clock
        self.clock = before + first * parts
        yield
        self.clock = before + total * parts

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count the time in which the host waits for the device."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - begin

    def _call(self, work: Callable[[], Result], trials: int) -> Result:
        """Return what a call of the backend does, in a thread if it may hang.

        Raises:
            DeviceError: it failed in any way but by a ValueError, with which a backend refuses what it is asked for.
        """
        with self._waiting(), _as_device_error("run"):
            return work() if self._watch is None else self._watch.call(work, f"a run of {trials} trials")

    def _placed(self) -> Plan:
        if self.plan is None:
            raise DeviceError("no network is placed on the device; call net.attach(device) first")
        return self.plan

    def _attempt(
        self,
        circuit: Circuit,
        integers: Mapping[str, Tensor],
        stimulus: Stimulus,
        first: Recording | DeviceError | None,
    ) -> Recording:
        """Run until every trial has arrived whole; trials that have are kept, `first` is what has come already."""
        arrivals = Arrivals(stimulus, independent=circuit.trial_time is None)
        for attempt in range(self.retries + 1):
            error = self._run_missing(circuit, integers, arrivals, first)
            first = None
            if arrivals.whole():
                return arrivals.result(attempt)
            if attempt < self.retries:
                level = logging.DEBUG if error is None else logging.WARNING
                text = "run failed (%s), attempt %d of %d follows"
                log.log(level, text, arrivals.describe(error), attempt + 2, self.retries + 1)
        raise DeviceError(
            f"a run of {stimulus.spikes.samples} trials failed {self.retries + 1} times, last: "
            f"{arrivals.describe(error)}. No result of it was used; check the device, or allow more repeats than "
            f"backend.retries={self.retries}"
        ) from error

    def _run_missing(
        self,
        circuit: Circuit,
        integers: Mapping[str, Tensor],
        arrivals: Arrivals,
        found: Recording | DeviceError | None,
    ) -> DeviceError | None:
        """Run once what is missing, unless its outcome is `found` already; an error of the device is returned."""
        part = arrivals.wanted()
        try:
            if isinstance(found, DeviceError):
                raise found
            if found is None:
                found = self._call(lambda: self.backend.run(integers, part), part.spikes.samples)
            found = check_recording(circuit, found, part)
        except HangingError:
            raise
        except DeviceError as error:
            arrivals.fail(part)
            return error
        arrivals.add(part, found)
        return None


def device_of(net: Network) -> Device | None:
    """Return the device that a network is attached to; None in software."""
    return net.device if isinstance(net.device, Device) else None


@contextmanager
def _as_device_error(action: str) -> Iterator[None]:
    """Turn whatever a backend raises into DeviceError; a ValueError refuses what it was asked for, and stays.

    Args:
        action: what could not be done to the device.
    """
    try:
        yield
    except (DeviceError, ValueError):
        raise
    except Exception as error:
        raise DeviceError(f"the device could not {action}: {type(error).__name__}: {error}") from error


def _fired(spikes: Spikes, circuit: Circuit) -> Fired:
    """Return measured spikes on the time grid; those of a neuron in one bin count once."""
    if spikes.time.device.type == "cpu":
        grouped = compiled.bin_spikes(spikes, circuit.dt, circuit.samples)
        return Fired(None, grouped, (circuit.samples, spikes.samples, spikes.units))
    return Fired(spikes.to_grid(circuit.dt, circuit.samples, binary=True))


def membranes(codes: Tensor, unit: float) -> Tensor:
    """Return membranes `[T, B, N]` (leak 0) from codes `[B, T, N]`; each neuron's first sample is its leak.

    Subtracting the first sample of every trial removes the offsets of neuron and ADC channel
    (Cramer et al. 2022).
    """
    if codes.device.type == "cpu":
        return compiled.membranes(codes, unit)
    trace = codes.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return trace.sub_(trace[0].clone()).mul_(1 / unit)
