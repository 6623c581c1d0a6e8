"""The thread that owns the device and executes one job at a time, while the server answers requests."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hxtrain.backends.abilities import Batching, supports
from hxtrain.backends.backend import Backend
from hxtrain.backends.capabilities import Capabilities
from hxtrain.backends.checks import check_circuit, check_recording
from hxtrain.backends.circuit import Circuit
from hxtrain.backends.recording import DeviceError, Recording, Stimulus
from hxtrain.backends.text import printable

from .complaints import Complaints
from .protocol import Code, Configured, Failure, Run, Status
from .tensors import check_sizes, largest_recording, read_run, recording_size, write_recordings
from .wire import WireError, pack

log = logging.getLogger(__name__)
complaints = Complaints(log)
LONGEST_ERROR = 2000
"""Longest text of an error that is sent (characters)."""


class PieceResult(NamedTuple):
    """Result of a piece of a run: a recording or an error, its number of trials, and the time of the backend (s).

    Without a recording and an error, the piece was not executed.
    """

    recording: Recording | None
    error: str
    trials: int
    seconds: float


@dataclass
class Outcome:
    """Outcome of a job: the reply's status, body and tensors, and data for statistics.

    Attributes:
        status: Status of the reply.
        body: Packed body of the reply.
        tensors: Frames of the reply's tensors.
        code: Code of an error; None without one.
        text: Text of an error.
        circuit: Circuit that this job configured.
        pieces: Results of the pieces of a run.
    """

    status: Status
    body: bytes
    tensors: list[memoryview] = field(default_factory=list)
    code: Code | None = None
    text: str = ""
    circuit: Circuit | None = None
    pieces: Sequence[PieceResult] = ()


class Facts(NamedTuple):
    """Facts about an open device."""

    capabilities: Capabilities
    identity: Mapping[str, str]


class Worker:
    """Executes jobs in a separate thread; `wake` becomes readable when a job ends.

    Args:
        backend: Device, which only the thread opens, uses and closes.
        threads: Number of torch threads of the device.
        max_message: Largest recording of a job (bytes).

    Raises:
        Exception: Any error of the backend's `open`.
    """

    def __init__(self, backend: Backend, threads: int, max_message: int) -> None:
        self.backend, self._threads = backend, threads
        self._max_message = max_message
        self._cancelled = threading.Event()
        self._weights: dict[str, Tensor] = {}
        self._jobs: SimpleQueue[Callable[[], Outcome] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._started: SimpleQueue[Facts | BaseException] = SimpleQueue()
        self.busy = False
        self.wake, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._work, name="hxtrain-device", daemon=True)
        self._thread.start()
        facts = self._started.get()
        if isinstance(facts, BaseException):
            self._thread.join()
            self._hang_up()
            raise facts
        self.facts = facts

    def submit(self, job: Callable[[], Outcome]) -> None:
        """Start a job; no other job may be running."""
        assert not self.busy
        self.busy = True
        self._cancelled.clear()
        self._jobs.put(job)

    def cancel(self) -> None:
        """Omit the remaining runs of the job, and end the run in progress if the device can do so; may be repeated."""
        self._cancelled.set()
        if supports(self.backend, "interruption"):
            self.backend.interrupt()

    def collect(self) -> Outcome | None:
        """Return the outcome of the job; None while it runs."""
        try:
            outcome = self._outcomes.get_nowait()
        except Empty:
            return None
        os.read(self.wake, 1)
        self.busy = False
        return outcome

    def configure(self, circuit: Circuit) -> Outcome:
        """Place a circuit; like `run`, this is a job for the thread only."""
        check_sizes(circuit)
        check_circuit(circuit, self.backend.capabilities)
        self.backend.configure(circuit)
        answer = Configured(dict(self.backend.identity), self.backend.warnings)
        return Outcome("ok", pack(answer), circuit=circuit)

    def run(self, circuit: Circuit, run: Run, tensors: Sequence[memoryview]) -> Outcome:
        """Run trials, piece by piece; all pieces run even if one fails."""
        matrices, stimuli = read_run(run, tensors, circuit)
        weights = self._weights = {name: self._reuse(name, matrix) for name, matrix in matrices.items()}
        results = list[PieceResult]()
        left = self._max_message
        while group := self._group(circuit, stimuli[len(results) :], left):
            pieces = self._run_pieces(circuit, weights, group)
            results += pieces
            left -= sum(recording_size(piece.recording) for piece in pieces if piece.recording is not None)
            if left < 0:
                return failed("too_large", self._excess(circuit, self._max_message - left))
        results += [PieceResult(None, "", stimulus.spikes.samples, 0.0) for stimulus in stimuli[len(results) :]]
        recordings, errors, _, seconds = zip(*results, strict=True)
        body, frames = write_recordings(recordings, errors, seconds)
        return Outcome("ok", pack(body), frames, pieces=results)

    def _group(self, circuit: Circuit, stimuli: Sequence[Stimulus], room: int) -> Sequence[Stimulus]:
        """Return as many of the first stimuli as `room` (bytes) allows for their largest possible recordings."""
        if self._cancelled.is_set():
            return []
        capabilities = self.facts.capabilities
        sizes = accumulate(largest_recording(circuit, capabilities, stimulus.spikes.samples) for stimulus in stimuli)
        return stimuli[: sum(size <= room for size in sizes)]

    def _excess(self, circuit: Circuit, size: int) -> str:
        return (
            f"the recording has {size} bytes or more, the server takes {self._max_message}: neurons fired more often "
            f"than the device's spike_interval={self.facts.capabilities.spike_interval} s and their refractory periods "
            f"({', '.join(f'{p.name} {p.refractory:g} s' for p in circuit.populations)}) allow; run fewer at once"
        )

    def _run_pieces(
        self, circuit: Circuit, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> list[PieceResult]:
        """Run pieces, at once if the device can do so; their time is then divided equally between them."""
        backend = self.backend
        times = [time.perf_counter()]
        outcomes = list[Recording | DeviceError]()
        with torch.no_grad():
            if len(stimuli) > 1 and supports(backend, "batching"):
                outcomes = self._attempt_all(backend, weights, stimuli)
                times += np.linspace(times[0], time.perf_counter(), len(stimuli) + 1)[1:].tolist()
            else:
                for stimulus in stimuli:
                    if self._cancelled.is_set():
                        break
                    outcomes.append(self._attempt(weights, stimulus))
                    times.append(time.perf_counter())
        results = []
        for stimulus, piece, (begin, end) in zip(stimuli, outcomes, pairwise(times), strict=False):
            outcome = _check(circuit, piece, stimulus)
            if isinstance(outcome, DeviceError):
                if self._cancelled.is_set():
                    break
                text = _shorten(str(outcome) or type(outcome).__name__)
                results.append(PieceResult(None, text, stimulus.spikes.samples, end - begin))
            else:
                results.append(PieceResult(outcome, "", stimulus.spikes.samples, end - begin))
        return results

    def _attempt_all(
        self, backend: Batching, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]
    ) -> list[Recording | DeviceError]:
        """Run stimuli at once; a job that is cancelled meanwhile has no outcomes, which is no failure."""
        try:
            outcomes = backend.run_all(weights, stimuli)
        except DeviceError:
            if self._cancelled.is_set():
                return []
            raise
        if len(outcomes) != len(stimuli):
            raise DeviceError(f"the device returned {len(outcomes)} recordings of {len(stimuli)} runs")
        return outcomes

    def _attempt(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording | DeviceError:
        try:
            return self.backend.run(weights, stimulus)
        except DeviceError as error:
            return error

    def _reuse(self, name: str, matrix: Tensor) -> Tensor:
        """Return the last run's tensor if it is equal to the new one: devices write only changed tensors."""
        last = self._weights.get(name)
        return last if last is not None and last.dtype == matrix.dtype and torch.equal(last, matrix) else matrix

    def close(self, patience: float) -> bool:
        """Close the device and end the thread; False if it hangs for longer than `patience` (s)."""
        self._jobs.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            return False
        self._hang_up()
        return True

    def _hang_up(self) -> None:
        for end in (self.wake, self._bell):
            os.close(end)

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # a setting of each thread
        try:
            self.backend.open()
            facts = Facts(self.backend.capabilities, dict(self.backend.identity))
        except BaseException as error:
            self._started.put(error)
            return
        self._started.put(facts)
        while (job := self._jobs.get()) is not None:
            self._outcomes.put(attempt(job))
            os.write(self._bell, b"\0")
        try:
            self.backend.close()
        except Exception:
            log.exception("the device could not be closed")


def _check(circuit: Circuit, piece: Recording | DeviceError, stimulus: Stimulus) -> Recording | DeviceError:
    """Return a recording of the right form for the circuit, else the error."""
    if isinstance(piece, DeviceError):
        return piece
    try:
        return check_recording(circuit, piece, stimulus)
    except DeviceError as error:
        return error


def attempt(job: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of a job; errors become replies."""
    try:
        return job()
    except DeviceError as error:
        return failed("device", str(error))
    except WireError as error:
        return failed("malformed", str(error))
    except ValueError as error:
        return failed("value", str(error))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        complaints.warn("internal", "the backend", f"an unforeseen failure, the server goes on ({text})", error)
        return failed("internal", text)


def failed(code: Code, text: str) -> Outcome:
    """Return the outcome of a job that failed."""
    message = _shorten(text)
    return Outcome("error", pack(Failure(code, message, None)), code=code, text=message)


def _shorten(text: str) -> str:
    return printable(text, LONGEST_ERROR)
