"""A device in the loop: the code that all backends share.

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
        backend: driver of the device.
        retries: number of repeats of a run that failed or lost trials, before its error is raised.
        drift_limit: change of the resting potentials above which recalibration is due (trace units, rms);
            an estimate, see `hxtrain.execution.drift`.
        trial_time: time from trial to trial (s) for fast inference, in which the state that a trial leaves may affect
            the next one; None: trials are far apart.
        forced_reset: whether membranes and synaptic currents are reset between trials.
        max_runs: largest number of runs per sample, for a network that is larger than the device.
        run_timeout: time (s) after which an unfinished run counts as hanging and is abandoned; each run then has a
            thread. None: the host waits without a limit.

    Attributes:
        clock: number of trials so far, summed over all parts; checkpoints hold it because emulated noise depends on it.
        plan: placement of the network; None until a network is attached.
        waited: wall-clock time in which the host waited for the device (s).
        warnings: messages for the user about the device in its configuration for the network.
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
        max_runs = whole("max_runs", max_runs)
        retries = whole("retries", retries)
        trial_time = optional(real)("trial_time", trial_time)
        forced_reset = flag("forced_reset", forced_reset)
        drift_limit = real("drift_limit", drift_limit)
        if max_runs < 1:
            raise ValueError(f"max_runs={max_runs} must be at least 1")
        if retries < 0:
            raise ValueError(f"retries={retries} must not be negative")
        if trial_time is not None and not trial_time > 0:
            raise ValueError(f"trial_time={trial_time} s must be positive; None for trials far apart")
        self.trial_time = trial_time
        self.forced_reset = forced_reset
        self.max_runs = max_runs
        self.backend = backend
        self.retries = retries
        self.drift_limit = drift_limit
        self._watch = None if run_timeout is None else Watch(run_timeout, backend.capabilities.name)
        self.clock = 0
        self.waited = 0.0
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
        """Plan the network and configure the device with it, or with each of its parts in turn.

        Raises:
            PlacementError: the network does not fit; the device keeps its configuration.
        """
        plan = place(net, self.backend.capabilities, self.trial_time, self.forced_reset, self.max_runs)
        self.plan = None
        self.warnings = self._try_parts(plan)
        self.plan = plan
        self.drift = DriftMonitor(self.drift_limit)
        return plan

    def _try_parts(self, plan: Plan) -> tuple[str, ...]:
        """Configure every part, the first one last, and return the device's warnings."""
        warnings: dict[str, list[int]] = {}
        numbered = list(enumerate((part.circuit for part in plan.parts), 1))
        self._configured = None
        for number, circuit in reversed(numbered):
            self._configure(circuit)
            for text in self.backend.warnings:
                warnings.setdefault(text, []).insert(0, number)
        return tuple(
            text if len(runs) == len(plan.parts) else f"run{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}: {text}"
            for text, runs in warnings.items()
        )

    def _configure(self, circuit: Circuit) -> None:
        """Configure the device with a circuit, unless it still has this configuration.

        Raises:
            DeviceError: the device is closed.
        """
        if self.backend.closed:
            raise DeviceError(
                "the device is closed; open it again (`with device:`, or device.backend.open()), or attach the network "
                "to another one"
            )
        if self._configured != (circuit, self.backend.configuration):
            self._configured = None
            with self._timing(), _as_device_error("be configured"):
                self.backend.configure(circuit)
            self._configured = circuit, self.backend.configuration

    def run(self, weights: list[Tensor], spikes: Spikes, events: GridEvents | None = None) -> Activity:
        """Run a batch and return the measured activity, in the model's units and the precision of the weights.

        With `spikes_only` (`Plan.resolution`), membranes of hidden layers are the model's response to the measured
        spikes and the weights as sent. The contract cannot request fewer traces: the device records all of them, and
        the host reads only the first samples of hidden traces, to observe drift.

        Args:
            weights: float weights of each projection.
            spikes: input events.
            events: input events on the time grid; None: computed from `spikes` if needed.

        Raises:
            DeviceError: a run failed on every attempt.
        """
        plan = self._require_plan()
        integers, self.scales = plan.quantise(weights)
        recording = self.record(integers, spikes)
        circuit = plan.circuit
        device = weights[0].device
        dtype = weights[0].dtype
        layers: list[LayerActivity] = []
        fired = {name: _fired(measured.to(device), circuit).to(dtype) for name, measured in recording.spikes.items()}
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
                # membranes of hidden layers are rarely needed except for gradients, which take codes
                is_lazy = name in fired and device.type == codes.device.type == "cpu" and dtype == torch.float32
                membrane = Codes(codes, unit) if is_lazy else membranes(codes.to(device), unit).to(dtype)
            layers.append(layer_activity(fired.get(name), membrane, recording.spikes.get(name)))
        return Activity(layers, recording.cost, recording.health)

    def weight_limits(self) -> list[float | None]:
        """Return by projection the largest float weight that is not clipped; None where the scale adapts."""
        return self._require_plan().weight_limits()

    def saturations(self, current: float) -> list[Saturation]:
        """Return the saturation of each projection's synaptic inputs, in the units of its weights in the last run.

        Args:
            current: current at which a synaptic input saturates (weight LSB).
        """
        per_circuit = self._require_plan().capabilities.inputs_per_circuit
        return [
            Saturation(current / scale, per_circuit, plan.projection.first_input)
            for plan, scale in zip(self._require_plan().projections, self.scales, strict=True)
        ]

    def record(self, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run a batch with integer weights; the batch is split to fit the device, and the recordings are joined.

        If the network has several parts, the whole batch runs through one part before the next one is configured.

        Raises:
            DeviceError: trials are missing after the last attempt.
        """
        plan = self._require_plan()
        torch_device = self.backend.torch_device if len(plan.parts) == 1 else "cpu"
        integers = {name: matrix.to(torch_device) for name, matrix in integers.items()}
        spikes = spikes.to(torch_device)
        if spikes.samples == 0:
            return nothing(plan.circuit, spikes.time.device)
        if len(plan.parts) == 1:
            self._configure(plan.parts[0].circuit)
            return self._with_drift_note(self._record_part(plan.parts[0], integers, spikes))
        measured = {INPUT: spikes}
        recordings: list[tuple[Part, Recording]] = []
        for part in plan.parts:
            self._configure(part.circuit)
            if part.source not in measured:
                measured[part.source] = replayed(spikes_of(part.source, recordings), plan.circuit.duration)
            recordings.append((part, self._record_part(part, part.weights(integers), measured[part.source])))
        return self._with_drift_note(merge(plan.circuit, recordings))

    def _record_part(self, part: Part, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run a batch through the configured part; its trials continue the clock."""
        size = part.trials_per_run(self._require_plan().capabilities)
        if not size or (self.backend.takes_any_batch and part.circuit.trial_time is None):
            size = max(spikes.samples, 1)
        stimuli = []
        clock = self.clock
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
        """Return the outcome of the first attempt at each run if the device runs several at once, else Nones."""
        backend = self.backend
        if not isinstance(backend, Batching) or len(stimuli) == 1:
            return [None] * len(stimuli)
        try:
            return self._call(lambda: backend.run_all(integers, stimuli), sum(s.spikes.samples for s in stimuli))
        except HangingError:
            raise
        except DeviceError as error:
            return [error, *[None] * (len(stimuli) - 1)]

    def _with_drift_note(self, recording: Recording) -> Recording:
        """Add a note to a recording's health when recalibration becomes due.

        Trials that follow closely without a reset start where the previous trial ended, rather than at rest; drift is
        not observed then.
        """
        circuit = self._require_plan().circuit
        if circuit.trial_time is not None and not circuit.forced_reset:
            return recording
        note = self.drift.add(recording)
        return recording if note is None else replace(recording, health=recording.health + Health(notes=(note,)))

    @contextmanager
    def sharing(self, first: int, total: int) -> Iterator[None]:
        """Set the clock for one of several devices that share `total` trials.

        Args:
            first: index of the first trial on this device.
            total: number of trials on all devices.
        """
        parts = len(self._require_plan().parts)
        start = self.clock
        self.clock = start + first * parts
        yield
        self.clock = start + total * parts

    @contextmanager
    def _timing(self) -> Iterator[None]:
        """Add the time that the host waits for the device to `waited`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

    def _call(self, work: Callable[[], Result], trials: int) -> Result:
        """Return the result of a call of the backend, made in a thread if it may hang.

        Raises:
            DeviceError: the call failed, except with a ValueError, by which a backend refuses a request.
        """
        with self._timing(), _as_device_error("run"):
            return work() if self._watch is None else self._watch.call(work, f"a run of {trials} trials")

    def _require_plan(self) -> Plan:
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
        """Run until every trial has arrived whole; complete trials are kept.

        Args:
            circuit: circuit of the configured part.
            integers: integer weights by projection.
            stimulus: trials of the run.
            first: outcome of the first attempt if it has been made, else None.
        """
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
        outcome: Recording | DeviceError | None,
    ) -> DeviceError | None:
        """Run the missing trials once, unless their `outcome` is available; return an error of the device."""
        part = arrivals.next_part()
        try:
            if isinstance(outcome, DeviceError):
                raise outcome
            if outcome is None:
                outcome = self._call(lambda: self.backend.run(integers, part), part.spikes.samples)
            recording = check_recording(circuit, outcome, part)
        except HangingError:
            raise
        except DeviceError as error:
            arrivals.fail(part)
            return error
        arrivals.add(part, recording)
        return None


def device_of(net: Network) -> Device | None:
    """Return the device that a network is attached to; None in software."""
    return net.device if isinstance(net.device, Device) else None


@contextmanager
def _as_device_error(action: str) -> Iterator[None]:
    """Turn every exception of a backend into a DeviceError, except a ValueError, which refuses a request.

    Args:
        action: verb phrase for the error, after "the device could not".
    """
    try:
        yield
    except (DeviceError, ValueError):
        raise
    except Exception as error:
        raise DeviceError(f"the device could not {action}: {type(error).__name__}: {error}") from error


def _fired(spikes: Spikes, circuit: Circuit) -> Fired:
    """Return measured spikes on the time grid; several spikes of a neuron in one bin count once."""
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
