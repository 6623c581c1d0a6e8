"""The thread that owns the device: one job at a time, so that the server can answer meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
import zmq
from torch import Tensor

from hxtrain.backends.contract import (
    Backend,
    Batching,
    Capabilities,
    Circuit,
    DeviceError,
    Recording,
    Stimulus,
    check_circuit,
)
from hxtrain.backends.text import printable

from .complaints import Complaints
from .protocol import Code, Configured, Failure, Run, Status
from .tensors import check_sizes, read_run, write_recordings
from .wire import WireError, pack

log = logging.getLogger(__name__)
complaints = Complaints(log)
WAKE = "inproc://worker"
LONGEST_ERROR = 2000
"""Longest text of an error that is sent (characters)."""


class Done(NamedTuple):
    """What came of a piece of a run: a recording or an error, its trials, and how long the backend took (s)."""

    recording: Recording | None
    error: str
    trials: int
    seconds: float


@dataclass
class Outcome:
    """What came of a job: the reply's status, body and tensors, and what statistics need.

    Attributes:
        code, text: of an error.
        circuit: configured by this job.
        done: what came of the pieces of a run.
    """

    status: Status
    body: bytes
    tensors: list[memoryview] = field(default_factory=list)
    code: Code | None = None
    text: str = ""
    circuit: Circuit | None = None
    done: Sequence[Done] = ()


class Facts(NamedTuple):
    """What is known of a device once it is open."""

    capabilities: Capabilities
    identity: Mapping[str, str]


class Worker:
    """Runs jobs in a thread of its own; `wake` becomes readable when one is done.

    Args:
        backend: opened, used and closed by the thread only.
        context: of the wake-up socket.
        threads: torch threads of the device.

    Raises:
        Exception: whatever opening the backend raises.
    """

    def __init__(self, backend: Backend, context: zmq.Context[zmq.Socket[bytes]], threads: int) -> None:
        self.backend, self._context, self._threads = backend, context, threads
        self._weights: dict[str, Tensor] = {}
        self.wake = context.socket(zmq.PULL)
        self.wake.bind(WAKE)
        self._jobs: SimpleQueue[Callable[[], Outcome] | None] = SimpleQueue()
        self._done: SimpleQueue[Outcome] = SimpleQueue()
        self._started: SimpleQueue[Facts | BaseException] = SimpleQueue()
        self.busy = False
        self._thread = threading.Thread(target=self._work, name="hxtrain-device", daemon=True)
        self._thread.start()
        facts = self._started.get()
        if isinstance(facts, BaseException):
            self._thread.join()
            self.wake.close()
            raise facts
        self.facts = facts

    def submit(self, job: Callable[[], Outcome]) -> None:
        """Start a job; there must be none."""
        assert not self.busy
        self.busy = True
        self._jobs.put(job)

    def collect(self) -> Outcome | None:
        """Return what came of the job; None while it runs."""
        if not self.wake.poll(0):
            return None
        self.wake.recv()
        self.busy = False
        return self._done.get()

    def configure(self, circuit: Circuit) -> Outcome:
        """Place a circuit; a job, as `run`, for the thread only."""
        check_sizes(circuit)
        check_circuit(circuit, self.backend.capabilities)
        self.backend.configure(circuit)
        answer = Configured(dict(self.backend.identity), self.backend.warnings)
        return Outcome("ok", pack(answer), circuit=circuit)

    def run(self, circuit: Circuit, run: Run, tensors: Sequence[memoryview]) -> Outcome:
        """Run trials, piece by piece; one that fails does not keep the others from being run."""
        arrived, stimuli = read_run(run, tensors, circuit)
        weights = self._weights = {name: self._known(name, matrix) for name, matrix in arrived.items()}
        done = self._run_pieces(weights, stimuli)
        recordings, errors, _, seconds = zip(*done, strict=True)
        body, frames = write_recordings(recordings, errors, seconds)
        return Outcome("ok", pack(body), frames, done=done)

    def _run_pieces(self, weights: Mapping[str, Tensor], stimuli: Sequence[Stimulus]) -> list[Done]:
        """Run pieces, all at once if the device takes them so; their time is then shared between them."""
        backend, times, found = self.backend, [time.perf_counter()], list[Recording | DeviceError]()
        with torch.no_grad():
            if isinstance(backend, Batching) and len(stimuli) > 1:
                found = backend.run_all(weights, stimuli)
                times += np.linspace(times[0], time.perf_counter(), len(stimuli) + 1)[1:].tolist()
            else:
                for stimulus in stimuli:
                    found.append(self._attempt(weights, stimulus))
                    times.append(time.perf_counter())
        trials = (stimulus.spikes.samples for stimulus in stimuli)
        return [
            Done(None, _shortened(str(piece) or type(piece).__name__), count, end - begin)
            if isinstance(piece, DeviceError)
            else Done(piece, "", count, end - begin)
            for piece, count, (begin, end) in zip(found, trials, pairwise(times), strict=True)
        ]

    def _attempt(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording | DeviceError:
        try:
            return self.backend.run(weights, stimulus)
        except DeviceError as error:
            return error

    def _known(self, name: str, matrix: Tensor) -> Tensor:
        """Return the last run's tensor if it is equal: devices write only new ones."""
        last = self._weights.get(name)
        return last if last is not None and last.dtype == matrix.dtype and torch.equal(last, matrix) else matrix

    def close(self, patience: float) -> bool:
        """Close the device and end the thread; False if it hangs for longer than `patience` (s)."""
        self._jobs.put(None)
        self._thread.join(patience)
        self.wake.close(0)
        return not self._thread.is_alive()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)  # a setting of each thread
        try:
            self.backend.open()
            facts = Facts(self.backend.capabilities, dict(self.backend.identity))
        except BaseException as error:
            self._started.put(error)
            return
        with self._context.socket(zmq.PUSH) as wake:
            wake.connect(WAKE)
            self._started.put(facts)
            while (job := self._jobs.get()) is not None:
                self._done.put(attempt(job))
                wake.send(b"")
        try:
            self.backend.close()
        except Exception:
            log.exception("the device could not be closed")


def attempt(job: Callable[[], Outcome]) -> Outcome:
    """Return what comes of a job; errors become replies."""
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
    shown = _shortened(text)
    return Outcome("error", pack(Failure(code, shown, None)), code=code, text=shown)


def _shortened(text: str) -> str:
    return printable(text, LONGEST_ERROR)
