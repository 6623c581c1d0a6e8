"""The chip server: one device, one lease at a time, over ZeroMQ."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

import zmq
from zmq.utils import z85

from hxtrain.backends.contract import Backend

from . import protocol as p
from .keys import Pair, check_bind, load_authorised, load_pair
from .leases import Desk, Lease
from .metrics import Counters, exposition
from .tensors import grid_size, largest_recording
from .wire import pack
from .worker import Outcome, Worker, failed

log = logging.getLogger(__name__)
SOFTWARE = f"hxtrain {version('hxtrain')}"
KEPT_CLIENTS = 8
"""Clients whose last replies are kept, besides the one that is running."""
KEPT_PEERS = 1024
"""Peers whose rate of requests is known."""
AT_ONCE = 32
"""Most requests that are answered before the device is looked after again."""
TICK = 0.1
"""Longest time between two looks at leases and signals (s)."""
LINGER = 2.0
"""Time in which the last replies may leave at the end (s)."""


@dataclass
class ServerSettings:
    """Settings of a server.

    Attributes:
        bind: address, e.g. `tcp://127.0.0.1:5555`, `ipc:///run/chip.sock`; port `*` takes a free one.
        keys: directory of keys (`hxtrain-serve keys DIR`); None serves this machine only.
        insecure: serve other machines without keys, too: anyone there can use the chip.
        max_message: largest message and recording (bytes).
        max_rate: requests per second of one client, on average.
        run_timeout: longest job (s).
        heartbeat_timeout: a client that is silent for so long loses lease or place (s).
        lease_time: a lease ends after so long if others wait (s).
        threads: torch threads of the device.
    """

    bind: str = "tcp://127.0.0.1:5555"
    keys: Optional[str] = None  # noqa: UP045 - OmegaConf resolves it on every Python
    insecure: bool = False
    max_message: int = 64 * 2**20
    max_rate: float = 1000.0
    run_timeout: float = 600.0
    heartbeat_timeout: float = 10.0
    lease_time: float = 300.0
    threads: int = 1

    def __post_init__(self) -> None:
        check_bind(self.bind, self.keys, self.insecure)
        for name in ("max_message", "max_rate", "run_timeout", "heartbeat_timeout", "threads"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.lease_time < 0:
            raise ValueError(f"lease_time={self.lease_time} s must not be negative")

    def limits(self) -> p.Limits:
        """Return what clients are told."""
        return p.Limits(self.max_message, self.max_rate, self.run_timeout, self.heartbeat_timeout, self.lease_time)


@dataclass
class Peer:
    """Where a reply goes: routing id of the connection, number of the request."""

    route: bytes
    request: int


@dataclass
class Job:
    """A job of a client: what it was, who waits for it, and what came of it (None: it runs)."""

    op: p.Operation
    client: str
    lease: Lease
    sequence: int
    digest: str
    started: float
    waiter: Peer
    outcome: Outcome | None = None
    cancelled: bool = False

    @property
    def size(self) -> int:
        """Return how much memory its outcome takes (bytes)."""
        return 0 if self.outcome is None else sum(len(frame) for frame in self.outcome.tensors)


class Server:
    """Serves a backend until `stop`.

    Args:
        backend: the device; opened here, closed at the end of `serve`.
        settings: of the server.

    Attributes:
        address: where it can be reached.

    Raises:
        ValueError: keys are missing or broken, or the address cannot be bound.
        Exception: whatever opening the backend raises.
    """

    def __init__(self, backend: Backend, settings: ServerSettings) -> None:
        self.settings, self.instance = settings, secrets.token_hex(8)
        pair = None if settings.keys is None else load_pair(Path(settings.keys).expanduser(), "server")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authority = None if pair is None else self._context.socket(zmq.REP)
        self._router = self._context.socket(zmq.ROUTER)
        try:
            self.address = self._bind(pair)
            self._worker = Worker(backend, self._context, settings.threads, settings.max_message)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        now = time.monotonic()
        self._desk = Desk(settings.heartbeat_timeout, settings.lease_time)
        self._counters = Counters(now)
        self._jobs: OrderedDict[tuple[str, str], Job] = OrderedDict()
        self._running: Job | None = None
        self._rates: OrderedDict[bytes | str, tuple[float, float]] = OrderedDict()
        self._stop = threading.Event()
        self._names: dict[str, str] = {}
        self._answers: dict[str, Callable[[p.Request, str], object]] = {
            "hello": self._hello,
            "lease": self._ask,
            "heartbeat": self._heartbeat,
            "cancel": self._cancel,
            "health": self._health,
            "status": self._status,
            "metrics": self._metrics,
            "release": self._release,
        }

    def serve(self) -> None:
        """Answer requests until `stop`; then finish the running job and close the device."""
        poller = zmq.Poller()
        sockets = [self._router, self._worker.wake] + ([] if self._authority is None else [self._authority])
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._stop.is_set() or self._finishing():
                ready = dict(poller.poll(int(TICK * 1000)))
                if self._authority is not None and self._authority in ready:
                    self._authenticate(self._authority)
                if self._router in ready:
                    self._answer_some()
                self._look_after_job()
                if not self._stop.is_set():
                    self._look_after_lease()
        finally:
            self._close()

    def stop(self) -> None:
        """Ask `serve` to end; for signal handlers and other threads."""
        self._stop.set()

    # sockets

    def _bind(self, pair: Pair | None) -> str:
        router, settings = self._router, self.settings
        router.copy_threshold = p.COPIED
        router.setsockopt(zmq.LINGER, int(LINGER * 1000))
        router.setsockopt(zmq.MAXMSGSIZE, 2 * settings.max_message)  # beyond it, ZeroMQ cuts the connection
        router.setsockopt(zmq.RCVHWM, AT_ONCE)
        router.setsockopt(zmq.SNDHWM, AT_ONCE)
        router.setsockopt(zmq.HEARTBEAT_IVL, int(settings.heartbeat_timeout * 500))
        router.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(settings.heartbeat_timeout * 2000))
        router.setsockopt(zmq.IPV6, int("[" in settings.bind))
        if pair is not None and self._authority is not None:
            self._authority.bind("inproc://zeromq.zap.01")
            router.curve_publickey, router.curve_secretkey = pair
            router.curve_server = True
            router.zap_domain = b"hxtrain"
        try:
            router.bind(settings.bind)
        except zmq.ZMQError as error:
            raise ValueError(f"bind={settings.bind}: {error.strerror}; is another server running there?") from None
        address: bytes = router.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
        return address.decode()

    def _authenticate(self, authority: zmq.Socket[bytes]) -> None:
        """Answer one question of ZeroMQ's authentication protocol (RFC 27); keys are read anew each time."""
        frames = authority.recv_multipart()
        number = frames[1] if len(frames) > 1 else b""
        name = None
        if len(frames) == 7 and frames[5] == b"CURVE" and len(frames[6]) == 32:
            key = z85.encode(frames[6])
            name = load_authorised(Path(self.settings.keys or "").expanduser()).get(key)
        if name is None:
            log.warning("refused a connection without an authorised key")
            self._counters.refuse("not_authorised", "a connection without an authorised key")
            authority.send_multipart([b"1.0", number, b"400", b"not authorised", b"", b""])
            return
        if len(self._names) >= KEPT_PEERS:
            self._names.clear()
        self._names[key.decode()] = name
        authority.send_multipart([b"1.0", number, b"200", b"OK", key, b""])

    def _answer_some(self) -> None:
        for _ in range(AT_ONCE):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._answer(frames)

    def _answer(self, frames: list[zmq.Frame]) -> None:
        """Answer one message, whatever it is."""
        peer = Peer(frames[0].bytes, 0)
        parts = [frame.buffer for frame in frames[1:]]
        self._counters.bytes_in += sum(len(part) for part in parts)
        try:
            user = "" if self._authority is None else str(frames[-1].get("User-Id"))
            self._admit(user or peer.route)
            request = p.parse_request(parts, self.settings.max_message)
            peer.request = request.head.id
            self._counters.requests[request.head.op] += 1
            if request.head.op in ("configure", "run"):
                self._take_job(request, user, peer)
                return
            if request.tensors:
                raise p.Refusal("malformed", f"{request.head.op} takes no tensors")
            self._send(peer, "ok", pack(self._answers[request.head.op](request, user)))
        except p.Refusal as refusal:
            self._refuse(peer, refusal)
        except Exception as error:
            log.exception("a request failed in an unforeseen way; the server goes on")
            self._refuse(peer, p.Refusal("internal", f"{type(error).__name__}: {error}"[:500]))

    def _admit(self, who: bytes | str) -> None:
        """Keep one peer from taking all the server's time: a bucket of one second of requests."""
        rate, now = self.settings.max_rate, time.monotonic()
        left, last = self._rates.pop(who, (max(rate, 1.0), now))
        left = min(max(rate, 1.0), left + (now - last) * rate)
        self._rates[who] = (max(left - 1, 0.0), now)
        if len(self._rates) > KEPT_PEERS:
            self._rates.popitem(last=False)
        if left < 1:
            raise p.Refusal("busy", f"more than {rate:g} requests per second; ask less often", (1 - left) / rate)

    def _refuse(self, peer: Peer, refusal: p.Refusal) -> None:
        self._counters.refuse(refusal.code, refusal.text)
        text = refusal.text[:2000]
        self._send(peer, "error", pack(p.Failure(refusal.code, text, refusal.retry_after)))

    def _send(self, peer: Peer, status: p.Status, body: bytes, tensors: Sequence[memoryview] = ()) -> None:
        frames = p.reply_frames(p.ReplyHead(peer.request, status), body, tensors)
        self._counters.bytes_out += sum(len(frame) for frame in frames)
        try:
            self._router.send_multipart([peer.route, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:  # the peer has gone or does not read: it asks again if it lives
            log.debug("a reply was not sent: %s", error)

    # requests

    def _hello(self, request: p.Request, user: str) -> p.Welcome:
        p.read_body(p.Hello, request)
        facts = self._worker.facts
        return p.Welcome(SOFTWARE, self.instance, facts.capabilities, facts.identity, self.settings.limits())

    def _ask(self, request: p.Request, user: str) -> p.Place:
        ask: p.Ask = p.read_body(p.Ask, request)
        self._refuse_when_closing()
        if user:
            ask = p.Ask(ask.client, f"{self._names.get(user, 'unknown key')} ({ask.label})"[:128])
        before = self._desk.lease
        place = self._desk.ask(ask, user, time.monotonic(), not self._worker.busy)
        self._log_change(before)
        return place

    def _heartbeat(self, request: p.Request, user: str) -> p.Empty:
        p.read_body(p.Empty, request)
        self._desk.holder(request.head.lease, user, time.monotonic())
        return p.Empty()

    def _release(self, request: p.Request, user: str) -> p.Empty:
        p.read_body(p.Empty, request)
        before = self._desk.lease
        self._desk.release(request.head.lease, user, time.monotonic(), not self._worker.busy)
        self._log_change(before)
        return p.Empty()

    def _cancel(self, request: p.Request, user: str) -> p.Empty:
        """Note that the holder does not want the job any more, if it is the one that is running."""
        cancel: p.Cancel = p.read_body(p.Cancel, request)
        lease, job = self._desk.holder(request.head.lease, user, time.monotonic()), self._running
        if job is not None and job.lease is lease and job.sequence == cancel.sequence:
            job.cancelled = True
        return p.Empty()

    def _end_unwanted_job(self, job: Job) -> None:
        """End a job that was cancelled, whose client has gone, or that took too long; asked for again at each look."""
        if job.cancelled or job.outcome is not None or self._desk.lease is not job.lease:
            self._worker.cancel()

    def _health(self, request: p.Request, user: str) -> p.DeviceHealth:
        p.read_body(p.Empty, request)
        return self._device_health()

    def _device_health(self) -> p.DeviceHealth:
        c, job = self._counters, self._running
        seconds = 0.0 if job is None else time.monotonic() - job.started
        state: Any = "idle" if job is None else "busy" if job.outcome is None else "stuck"
        return p.DeviceHealth(state, seconds, dict(c.errors), c.last_error, c.dropped_spikes, c.retries, c.lost_trials)

    def _status(self, request: p.Request, user: str) -> p.Report:
        p.read_body(p.Empty, request)
        c, now = self._counters, time.monotonic()
        holder, queue = self._desk.clients(now)
        return p.Report(
            SOFTWARE,
            self._worker.facts.identity,
            now - c.start,
            self._device_health(),
            holder,
            queue,
            c.runs,
            c.trials,
            c.trials_per_second(now),
            c.duplicates,
            dict(c.errors),
        )

    def _metrics(self, request: p.Request, user: str) -> p.Text:
        p.read_body(p.Empty, request)
        now, desk = time.monotonic(), self._desk
        gauges = {
            "leases": ("Leases that were given.", desk.granted),
            "leases_expired": ("Leases that ended because their holder was silent.", desk.expired),
            "lease_held": ("Whether someone has the chip.", float(desk.lease is not None)),
            "queue_length": ("Clients that wait for the chip.", len(desk.queue)),
            "device_busy": ("Whether a job is running.", float(self._worker.busy)),
        }
        return p.Text(exposition(self._counters, gauges, self._worker.facts.identity, now))

    # jobs

    def _take_job(self, request: p.Request, user: str, peer: Peer) -> None:
        """Start a job, or answer a repeated one."""
        head, now = request.head, time.monotonic()
        lease = self._desk.holder(head.lease, user, now)
        client = lease.member.client
        if self._answer_repeated(request, lease, peer):
            return
        self._refuse_when_closing()
        if self._worker.busy:
            raise p.Refusal("busy", "the device is still at an earlier job", 0.05)
        if not request.digest_matches():
            raise p.Refusal("malformed", "body and tensors do not have the digest of the head; send them again")
        work = self._work(request, lease)
        job = Job(head.op, client, lease, head.sequence, head.digest, now, peer)
        self._jobs[client, head.op] = job
        self._jobs.move_to_end((client, head.op))
        self._forget_old_jobs()
        self._running = job
        self._worker.submit(work)

    def _forget_old_jobs(self) -> None:
        """Keep the last replies of a few clients, and no more than two large ones besides the newest."""
        kept = sum(job.size for job in self._jobs.values())
        while len(self._jobs) > 1 and (len(self._jobs) > 2 * KEPT_CLIENTS or kept > 2 * self.settings.max_message):
            _, forgotten = self._jobs.popitem(last=False)
            kept -= forgotten.size

    def _work(self, request: p.Request, lease: Lease) -> Callable[[], Outcome]:
        worker = self._worker
        if request.head.op == "configure":
            if request.tensors:
                raise p.Refusal("malformed", "configure takes no tensors")
            circuit = p.read_body(p.Configure, request).circuit
            return lambda: worker.configure(circuit)
        run: p.Run = p.read_body(p.Run, request)
        placed = lease.circuit
        if placed is None:
            raise p.Refusal("device", "the device is not configured in this lease; configure before run")
        needed = grid_size(placed, run.spikes.samples)
        largest = largest_recording(placed, worker.facts.capabilities, max(run.sizes, default=0))
        if max(needed, largest) > self.settings.max_message:
            text = (
                f"a run of {run.spikes.samples} samples has {needed} codes and bins, and up to {largest} bytes with the"
            )
            limit = f"spikes of its largest piece; the server takes {self.settings.max_message}"
            raise p.Refusal("too_large", f"{text} {limit}; run fewer at once, or ask for a longer refractory period")
        return lambda: worker.run(placed, run, request.tensors)

    def _answer_repeated(self, request: p.Request, lease: Lease, peer: Peer) -> bool:
        """Answer a job that this client sent before from what is kept; a circuit goes with its lease."""
        head = request.head
        job = self._jobs.get((lease.member.client, head.op))
        if job is None or (head.op == "configure" and job.lease is not lease):
            return False
        if head.sequence < job.sequence:
            text = f"{head.op} {head.sequence} is older than {job.sequence}, the last one of this client"
            raise p.Refusal("stale", text)
        if head.sequence > job.sequence:
            return False
        if head.digest != job.digest:
            raise p.Refusal("value", f"{head.op} {head.sequence} was sent before with another content")
        self._counters.duplicates += 1
        if job.outcome is None:
            job.waiter = peer
            self._send(peer, "pending", pack(p.Pending(time.monotonic() - job.started)))
        else:
            self._send(peer, job.outcome.status, job.outcome.body, job.outcome.tensors)
        return True

    def _look_after_job(self) -> None:
        """Send what came of the job; say so once if it takes too long."""
        job, now = self._running, time.monotonic()
        if job is None:
            return
        outcome = self._worker.collect()
        if outcome is None:
            self._end_unwanted_job(job)
            if job.outcome is None and now - job.started > self.settings.run_timeout:
                text = f"the device did not answer within {self.settings.run_timeout:g} s; look after it"
                self._conclude(job, failed("device", text), now)
            return
        self._running = None
        if job.outcome is None:
            self._conclude(job, outcome, now)

    def _conclude(self, job: Job, outcome: Outcome, now: float) -> None:
        self._counters.finish(outcome, now)
        errors = [(outcome.code, outcome.text)] if outcome.code is not None else []
        errors += [("device", piece.error) for piece in outcome.done if piece.error]
        for code, text in errors:
            log.warning("%s %d of %s: %s: %s", job.op, job.sequence, job.lease.member.label, code, text)
        job.outcome, outcome.done = outcome, ()  # its tensors are in the frames
        if outcome.code is None:
            job.lease.jobs += job.op == "run"
            job.lease.circuit = outcome.circuit or job.lease.circuit
        elif job.op == "configure":
            job.lease.circuit = None
        self._send(job.waiter, outcome.status, outcome.body, outcome.tensors)

    # leases and the end

    def _look_after_lease(self) -> None:
        before = self._desk.lease
        self._desk.advance(time.monotonic(), not self._worker.busy)
        self._log_change(before)

    def _log_change(self, before: Lease | None) -> None:
        after = self._desk.lease
        if before is after:
            return
        if before is not None:
            log.info("lease of %s ended after %d runs", before.member.label, before.jobs)
        if after is not None:
            log.info("lease given to %s, %d waiting", after.member.label, len(self._desk.queue))

    def _refuse_when_closing(self) -> None:
        if self._stop.is_set():
            raise p.Refusal("busy", "the server is closing", 1.0)

    def _finishing(self) -> bool:
        return self._running is not None and self._running.outcome is None

    def _close(self) -> None:
        if not self._worker.close(LINGER if self._running is not None else self.settings.run_timeout):
            log.error("the device hangs; it was not closed")
            self._router.close(0)  # the context cannot end before the worker's socket does
            return
        for socket in (self._router, self._authority):
            if socket is not None:
                socket.close()
        self._context.term()
