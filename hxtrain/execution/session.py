"""A session with a backend: it is configured, batches are split and run, runs are repeated, drift is observed.

`Device` runs networks through a session; `characterisation` runs circuits of its own through one.
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
    Circuit,
    DeviceError,
    Health,
    Recording,
    Spikes,
    Stimulus,
    check_recording,
    join,
    nothing,
    supports,
)
from hxtrain.backends.recording import QueueTimeoutError
from hxtrain.checks import real, whole

from .drift import LIMIT, DriftMonitor
from .partition import Part, merge, replayed, spikes_of
from .repeats import Arrivals
from .timeout import HangingError, Watch

Result = TypeVar("Result")
CPU = torch.device("cpu")
log = logging.getLogger(__name__)


class Session:
    """Runs circuits on one backend.

    Args:
        backend: driver of the device.
        retries: number of repeats of a run that failed or lost trials, before its error is raised.
        drift_limit: change of the resting potentials above which recalibration is due (trace units, rms);
            an estimate, see `hxtrain.execution.drift`.
        run_timeout: time (s) after which an unfinished run counts as hanging and is abandoned; each run then has a
            thread. None: the host waits without a limit.

    Raises:
        ValueError: the number of repeats is negative.

    Attributes:
        clock: number of trials so far, summed over all parts; checkpoints hold it because emulated noise depends on it.
        waited: wall-clock time in which the host waited for the device (s).
        drift: monitor of the resting potentials.
    """

    def __init__(
        self, backend: Backend, retries: int = 5, drift_limit: float = LIMIT, run_timeout: float | None = None
    ) -> None:
        self.backend = backend
        self.retries = whole("retries", retries)
        self.drift_limit = real("drift_limit", drift_limit)
        if self.retries < 0:
            raise ValueError(f"retries={retries} must not be negative")
        self.clock = 0
        self.waited = 0.0
        self.drift = DriftMonitor(self.drift_limit)
        self._watch = None if run_timeout is None else Watch(run_timeout, backend.capabilities.name)
        self._configured: tuple[Circuit, object | None] | None = None

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

    def restart_drift(self) -> None:
        """Take the next resting potentials as the reference of drift."""
        self.drift = DriftMonitor(self.drift_limit)

    def configure_all(self, parts: Sequence[Part]) -> tuple[str, ...]:
        """Configure every part, the first one last, and return the device's warnings."""
        warnings: dict[str, list[int]] = {}
        numbered = list(enumerate((part.circuit for part in parts), 1))
        self._configured = None
        for number, circuit in reversed(numbered):
            self.configure(circuit)
            for text in self.backend.warnings:
                warnings.setdefault(text, []).insert(0, number)
        return tuple(
            text if len(runs) == len(parts) else f"run{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}: {text}"
            for text, runs in warnings.items()
        )

    def configure(self, circuit: Circuit) -> None:
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

    def record(
        self, circuit: Circuit, parts: Sequence[Part], integers: Mapping[str, Tensor], spikes: Spikes
    ) -> Recording:
        """Run a batch with integer weights; the batch is split to fit the device, and the recordings are joined.

        If the circuit has several parts, the whole batch runs through one part before the next one is configured.

        Args:
            circuit: circuit of all populations.
            parts: parts of the circuit that the device runs in turn, see `partition`.
            integers: integer weights by projection.
            spikes: input events.

        Raises:
            DeviceError: trials are missing after the last attempt.
        """
        torch_device = self.backend.torch_device if len(parts) == 1 else CPU
        integers = {name: matrix.to(torch_device) for name, matrix in integers.items()}
        if spikes.time.device != torch_device:
            spikes = spikes.to(torch_device)
        if spikes.samples == 0:
            return nothing(circuit, spikes.time.device)
        if len(parts) == 1:
            self.configure(parts[0].circuit)
            return self._with_drift_note(circuit, self._record_part(parts[0], integers, spikes))
        measured = {INPUT: spikes}
        recordings: list[tuple[Part, Recording]] = []
        for part in parts:
            self.configure(part.circuit)
            if part.source not in measured:
                measured[part.source] = replayed(spikes_of(part.source, recordings), circuit.duration)
            recordings.append((part, self._record_part(part, part.weights(integers), measured[part.source])))
        return self._with_drift_note(circuit, merge(circuit, recordings))

    @contextmanager
    def sharing(self, first: int, total: int, parts: int) -> Iterator[None]:
        """Set the clock for one of several devices that share `total` trials.

        Args:
            first: index of the first trial on this device.
            total: number of trials on all devices.
            parts: number of parts of the circuit, each of which runs every trial.
        """
        start = self.clock
        self.clock = start + first * parts
        yield
        self.clock = start + total * parts

    def _record_part(self, part: Part, integers: Mapping[str, Tensor], spikes: Spikes) -> Recording:
        """Run a batch through the configured part; its trials continue the clock."""
        is_any = self.backend.takes_any_batch and part.circuit.trial_time is None
        size = None if is_any else part.trials_per_run(self.backend.capabilities)
        stimuli = []
        clock = self.clock
        for piece in spikes.split(size) if size and size < spikes.samples else [spikes]:
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
        if len(stimuli) == 1 or not supports(backend, "batching"):
            return [None] * len(stimuli)
        try:
            return self._call(lambda: backend.run_all(integers, stimuli), sum(s.spikes.samples for s in stimuli))
        except (HangingError, QueueTimeoutError):
            raise
        except DeviceError as error:
            return [error, *[None] * (len(stimuli) - 1)]

    def _with_drift_note(self, circuit: Circuit, recording: Recording) -> Recording:
        """Add a note to a recording's health when recalibration becomes due.

        Trials that follow closely without a reset start where the previous trial ended, rather than at rest; drift is
        not observed then.
        """
        if circuit.trial_time is not None and not circuit.forced_reset:
            return recording
        note = self.drift.add(recording)
        return recording if note is None else replace(recording, health=recording.health + Health(notes=(note,)))

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
        outcome = self._outcome(circuit, integers, stimulus, first)
        if isinstance(outcome, Recording) and outcome.lost is None:  # the usual case
            return outcome
        arrivals = Arrivals(stimulus, independent=circuit.trial_time is None)
        part = stimulus
        for attempt in range(self.retries + 1):
            error = arrivals.take(part, outcome)
            if arrivals.whole():
                return arrivals.result(attempt)
            if attempt < self.retries:
                level = logging.DEBUG if error is None else logging.WARNING
                text = "run failed (%s), attempt %d of %d follows"
                log.log(level, text, arrivals.describe(error), attempt + 2, self.retries + 1)
                part = arrivals.next_part()
                outcome = self._outcome(circuit, integers, part, None)
        raise DeviceError(
            f"a run of {stimulus.spikes.samples} trials failed {self.retries + 1} times, last: "
            f"{arrivals.describe(error)}. No result of it was used; check the device, or allow more repeats than "
            f"backend.retries={self.retries}"
        ) from error

    def _outcome(
        self,
        circuit: Circuit,
        integers: Mapping[str, Tensor],
        part: Stimulus,
        first: Recording | DeviceError | None,
    ) -> Recording | DeviceError:
        """Return the checked recording of trials, or the device's error; they run now unless the outcome is known."""
        try:
            if isinstance(first, DeviceError):
                raise first
            if first is None:
                first = self._call(lambda: self.backend.run(integers, part), part.spikes.samples)
            return check_recording(circuit, first, part)
        except (HangingError, QueueTimeoutError):
            raise
        except DeviceError as error:
            return error


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
