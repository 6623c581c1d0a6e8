"""The chip server: one device, with one lease at a time, behind a front to the network."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from hxtrain.backends.backend import Backend

from . import protocol as p
from .front import Arrival
from .jobs import Job, Ledger, Peer
from .leases import Desk, Lease, Origin
from .metrics import exposition
from .reception import LINGER, SOFTWARE, TICK, Answer, Reception, ReceptionSettings
from .tensors import grid_size, largest_recording
from .wire import Lines, pack
from .worker import Outcome, Worker, failed

log = logging.getLogger(__name__)


@dataclass
class ServerSettings(ReceptionSettings):
    """Settings of a server.

    Attributes:
        run_timeout: Longest job (s).
        heartbeat_timeout: Silence after which a client loses its lease or place (s).
        lease_time: Duration of a lease while others wait (s).
        threads: Number of torch threads of the device.
    """

    run_timeout: float = 600.0
    heartbeat_timeout: float = 10.0
    lease_time: float = 300.0
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("run_timeout", "heartbeat_timeout", "threads")
        if self.lease_time < 0:
            raise ValueError(f"lease_time={self.lease_time} s must not be negative")

    def limits(self) -> p.Limits:
        """Return the limits that clients get."""
        return p.Limits(self.max_message, self.max_rate, self.run_timeout, self.heartbeat_timeout, self.lease_time)


class Server(Reception):
    """Serves a backend until `stop`.

    Args:
        backend: Device to serve; the constructor opens it, and `serve` closes it at its end.
        settings: Settings of the server.

    Attributes:
        address: Address of the server.

    Raises:
        ValueError: Keys are missing or broken, or the address cannot be bound.
        Exception: Any error of the backend's `open`.
    """

    OTHERWISE = "{} is for a pool of chips, and this is a single chip: write address=tcp://..., not pool://..."
    _desk: Desk

    def __init__(self, backend: Backend, settings: ServerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.instance = secrets.token_hex(8)
        try:
            self._worker = Worker(backend, settings.threads, settings.max_message)
        except BaseException:
            self._hang_up()
            raise
        self._desk = Desk(settings.heartbeat_timeout, settings.lease_time)
        self._ledger = Ledger(settings.max_message)
        self._running: Job | None = None
        self._answers = {
            "hello": Answer(p.Hello, self._hello),
            "lease": Answer(p.Ask, self._ask),
            "heartbeat": Answer(p.Empty, self._heartbeat),
            "cancel": Answer(p.Cancel, self._cancel),
            "health": Answer(p.Empty, self._health),
            "status": Answer(p.Empty, self._status),
            "metrics": Answer(p.Empty, self._metrics),
            "release": Answer(p.Empty, self._release),
        }

    def serve(self) -> None:
        """Answer requests until `stop`; then finish the running job and close the device."""
        poller = zmq.Poller()
        poller.register(self._front.link.fileno(), zmq.POLLIN)
        poller.register(self._worker.wake, zmq.POLLIN)
        try:
            while not self._stop.is_set() or self._finishing():
                ready = dict(poller.poll(int(TICK * 1000)))
                if self._front.link.fileno() in ready:
                    self._answer_some()
                self._look_after_job()
                if not self._stop.is_set():
                    self._look_after_lease()
                self._look_after_front(poller)
        finally:
            self._close()

    # requests

    def _hello(self, hello: p.Hello, lease: str, origin: Origin) -> bytes:
        """Return the packed welcome, with the additions that the client knows."""
        facts = self._worker.facts
        limits = self.settings.limits()
        welcome = p.Welcome(SOFTWARE, self.instance, facts.capabilities, facts.identity, limits, p.ADDITIONS)
        return pack(welcome, hello.additions)

    def _ask(self, ask: p.Ask, lease: str, origin: Origin) -> p.Place:
        self._refuse_when_closing()
        ask = p.Ask(ask.client, self._label(ask.label, origin))
        previous = self._desk.lease
        place = self._desk.ask(ask, origin, time.monotonic(), not self._worker.busy)
        self._log_change(previous)
        return place

    def _release(self, body: p.Empty, lease: str, origin: Origin) -> p.Empty:
        previous = self._desk.lease
        self._desk.release(lease, origin.user, time.monotonic(), not self._worker.busy)
        self._log_change(previous)
        return p.Empty()

    def _cancel(self, cancel: p.Cancel, lease: str, origin: Origin) -> p.Empty:
        """Mark a job as cancelled by its holder, if it is the running one."""
        current = self._desk.holder(lease, origin.user, time.monotonic())
        job = self._running
        if job is not None and job.lease is current and job.sequence == cancel.sequence:
            job.cancelled = True
        return p.Empty()

    def _end_unwanted_job(self, job: Job) -> None:
        """End a job that was cancelled, has lost its client, or took too long; called at each look at the job."""
        if job.cancelled or job.outcome is not None or self._desk.lease is not job.lease:
            self._worker.cancel()

    def _health(self, body: p.Empty, lease: str, origin: Origin) -> p.DeviceHealth:
        return self._device_health()

    def _device_health(self) -> p.DeviceHealth:
        c, job = self._counters, self._running
        seconds = 0.0 if job is None else time.monotonic() - job.started
        state: Any = "idle" if job is None else "busy" if job.outcome is None else "stuck"
        return p.DeviceHealth(state, seconds, dict(c.errors), c.last_error, c.dropped_spikes, c.retries, c.lost_trials)

    def _status(self, body: p.Empty, lease: str, origin: Origin) -> p.Report:
        c = self._counters
        moment = time.monotonic()
        holder, queue = self._desk.clients(moment)
        return p.Report(
            SOFTWARE,
            self._worker.facts.identity,
            moment - c.start,
            self._device_health(),
            holder,
            queue,
            c.runs,
            c.trials,
            c.trials_per_second(moment),
            c.duplicates,
            dict(c.errors),
        )

    def _metrics(self, body: p.Empty, lease: str, origin: Origin) -> p.Text:
        moment = time.monotonic()
        desk = self._desk
        gauges = {
            "leases": ("Leases that were given.", desk.granted),
            "leases_expired": ("Leases that ended because their holder was silent.", desk.expired),
            "lease_held": ("Whether someone has the chip.", float(desk.lease is not None)),
            "queue_length": ("Clients that wait for the chip.", len(desk.queue)),
            "front_restarts": ("Fronts that ended and were replaced.", float(self._front.restarts)),
            "device_busy": ("Whether a job is running.", float(self._worker.busy)),
        }
        return p.Text(Lines(exposition(self._counters, gauges, self._worker.facts.identity, moment)))

    # jobs

    def _carry_out(self, request: p.Request, origin: Origin, peer: Peer, arrival: Arrival) -> None:
        if request.head.op in p.JOBS:
            self._take_job(request, origin, peer, arrival.whole)
        else:
            super()._carry_out(request, origin, peer, arrival)

    def _take_job(self, request: p.Request, origin: Origin, peer: Peer, whole: bool) -> None:
        """Start a job, or answer a repeated one."""
        head = request.head
        moment = time.monotonic()
        lease = self._desk.holder(head.lease, origin.user, moment)
        if not whole:  # the client sent it before the front knew the lease
            raise p.Refusal("busy", "send it again", 0.01)
        repeated = self._ledger.repeated(head, lease)
        if repeated is not None:
            self._answer_again(repeated, peer)
            return
        self._refuse_when_closing()
        if self._worker.busy:
            raise p.Refusal("busy", "the device is still at an earlier job", 0.05)
        if not request.digest_matches():
            raise p.Refusal("malformed", "body and tensors do not have the digest of the head; send them again")
        work = self._work(request, lease)
        job = Job(head.op, lease.member.client, lease, head.sequence, head.digest, moment, peer)
        self._ledger.add(job)
        self._running = job
        self._worker.submit(work)

    def _work(self, request: p.Request, lease: Lease) -> Callable[[], Outcome]:
        worker = self._worker
        if request.head.op == "configure":
            circuit = p.read_body(p.Configure, request).circuit
            return lambda: worker.configure(circuit)
        run: p.Run = p.read_body(p.Run, request)
        configured = lease.circuit
        if configured is None:
            raise p.Refusal("device", "the device is not configured in this lease; configure before run")
        grid = grid_size(configured, run.spikes.samples)
        largest = largest_recording(configured, worker.facts.capabilities, max(run.sizes, default=0))
        if max(grid, largest) > self.settings.max_message:
            text = (
                f"a run of {run.spikes.samples} samples has {grid} codes and bins, and up to {largest} bytes with the"
            )
            limit = f"spikes of its largest piece; the server takes {self.settings.max_message}"
            raise p.Refusal("too_large", f"{text} {limit}; run fewer at once, or ask for a longer refractory period")
        return lambda: worker.run(configured, run, request.tensors)

    def _answer_again(self, job: Job, peer: Peer) -> None:
        """Answer a repeated job with its kept outcome, or when it ends."""
        self._counters.duplicates += 1
        if job.outcome is None:
            job.waiter = peer
            self._send(peer, "pending", pack(p.Pending(time.monotonic() - job.started)))
        else:
            self._send(peer, job.outcome.status, job.outcome.body, job.outcome.tensors)

    def _look_after_job(self) -> None:
        """Send the outcome of the job; send an error once if the job takes too long."""
        job = self._running
        moment = time.monotonic()
        if job is None:
            return
        outcome = self._worker.collect()
        if outcome is None:
            self._end_unwanted_job(job)
            if job.outcome is None and moment - job.started > self.settings.run_timeout:
                text = f"the device did not answer within {self.settings.run_timeout:g} s; look after it"
                self._conclude(job, failed("device", text), moment)
            return
        self._running = None
        if job.outcome is None:
            self._conclude(job, outcome, moment)

    def _conclude(self, job: Job, outcome: Outcome, moment: float) -> None:
        """Send the outcome of a job, and then record it."""
        self._send(job.waiter, outcome.status, outcome.body, outcome.tensors)
        self._counters.finish(outcome, moment)
        errors = [(outcome.code, outcome.text)] if outcome.code is not None else []
        errors += [("device", piece.error) for piece in outcome.pieces if piece.error]
        for code, text in errors:
            label = job.lease.member.label
            self._complaints.warn(code, job.waiter.name, f"{job.op} {job.sequence} of {label}: {code}: {text}")
        job.lease.worked = moment
        job.outcome = outcome  # its tensors are in the frames
        outcome.pieces = ()
        if outcome.code is None:
            job.lease.jobs += job.op == "run"
            job.lease.circuit = outcome.circuit or job.lease.circuit
        elif job.op == "configure":
            job.lease.circuit = None

    # leases and the end

    def _look_after_lease(self) -> None:
        previous = self._desk.lease
        self._desk.advance(time.monotonic(), not self._worker.busy)
        self._log_change(previous)

    def _log_change(self, previous: Lease | None) -> None:
        current = self._desk.lease
        if previous is current:
            return
        self._front.admit("" if current is None else current.token)
        if previous is not None:
            self._note("lease ended", previous, f"its lease ended after {previous.jobs} runs")
        if current is not None:
            self._note("lease given", current, f"it has the lease, {len(self._desk.queue)} waiting")

    def _note(self, kind: str, lease: Lease, text: str) -> None:
        self._complaints.warn(kind, lease.member.label, text, level=logging.INFO)

    def _finishing(self) -> bool:
        return self._running is not None and self._running.outcome is None

    def _close(self) -> None:
        patience = LINGER if self._running is not None else self.settings.run_timeout
        closed = self._worker.close(patience)
        self._hang_up()
        if not closed:
            log.error("the device hangs; it was not closed")
