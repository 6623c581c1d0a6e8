"""A client's connection, which repeats requests on new connections until they are answered."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from hxtrain.backends.addresses import EXAMPLE, endpoint, is_pool
from hxtrain.backends.recording import DeviceError

from . import protocol as p
from .address import check_endpoint
from .keys import load_pair, load_public
from .wire import LARGEST_PART, WireError, pack, unpack

log = logging.getLogger(__name__)
Body = TypeVar("Body")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Pauses between attempts (s): they double from the first to the longest, times a random factor of 0.5 to 1.5."""
TICK = 0.1
"""Longest time between two checks whether the caller still waits for the answer (s)."""
SMALL = 2 * LARGEST_PART
"""Largest accepted frame of a server with unknown limits (bytes)."""
NO_HANDSHAKE = "the handshake failed: do server and client both use keys, the same ones?"
EVENTS = {
    zmq.Event.HANDSHAKE_SUCCEEDED: "no answer",
    zmq.Event.CONNECT_RETRIED: "nothing listens there",
    zmq.Event.DISCONNECTED: "the server closed the connection",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: NO_HANDSHAKE,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: NO_HANDSHAKE,
    zmq.Event.HANDSHAKE_FAILED_AUTH: "the server does not accept this client's key",
}


@dataclass
class LinkSettings:
    """Settings of a client's connection to a server, or to the broker of a pool.

    Attributes:
        address: Address of the server, or of a pool, `pool://HOST:PORT`.
        keys: Directory with `client.key_secret` and `server.key`; None without keys.
        timeout: Silence after which a request is repeated (s).
        patience: Silence after which a request fails (s).
    """

    address: str
    keys: str | None = None
    timeout: float = 5.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            raise ValueError(f"address={self.address!r} must be a text, such as tcp://127.0.0.1:5555")
        try:
            check_endpoint(self.endpoint)
        except ValueError as error:
            raise ValueError(f"address={self.address!r}: {error}, and {EXAMPLE} for a pool of chips") from None
        for name in ("timeout", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} s must be positive")

    @property
    def is_pool(self) -> bool:
        """Whether the address is one of a pool."""
        return is_pool(self.address)

    @property
    def endpoint(self) -> str:
        """Address for ZeroMQ."""
        return endpoint(self.address) if self.is_pool else self.address

    @property
    def peer(self) -> str:
        """What is at the address, for people."""
        return f"{'pool' if self.is_pool else 'chip server'} {self.address}"

    @property
    def question(self) -> str:
        """Command that shows what the server or broker does."""
        keys = "" if self.keys is None else f" keys={self.keys}"
        return f"hxtrain {'pool' if self.is_pool else 'serve'} status address={self.address}{keys}"


@dataclass
class Reply:
    """A successful answer: its raw body and tensors."""

    body: memoryview
    tensors: list[memoryview]

    def read(self, kind: type[Body]) -> Body:
        """Return the body.

        Raises:
            DeviceError: The body violates the protocol.
        """
        try:
            return unpack(kind, self.body)
        except WireError as error:
            raise DeviceError(f"the server's answer makes no sense: {error}") from None


class Setbacks:
    """Limits the time of repeated attempts at something, and waits between them.

    Args:
        settings: Settings of the connection, with the patience.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._count = 0
        self._since = 0.0

    def add(self, text: str, excused: float = 0.0) -> None:
        """Count a setback; from the second one on, wait for a growing pause.

        Args:
            text: Description of the setback.
            excused: Total time that does not count (s).

        Raises:
            ConnectionLostError: The setbacks have gone on for longer than the patience.
        """
        moment = time.monotonic() - excused
        self._since = self._since if self._count else moment
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._count, 16)) * random.uniform(0.5, 1.5)
        if moment - self._since + pause > self._settings.patience:
            raise p.ConnectionLostError(
                f"{self._settings.peer}: {text}, {self._count + 1} times within {moment - self._since:.1f} s. See what "
                f"it does: {self._settings.question}; "
                f"wait longer with more than patience={self._settings.patience:g}"
            )
        if self._count:
            time.sleep(pause)
        self._count += 1


class Link:
    """Sends requests, one at a time; for one thread only.

    Args:
        settings: Settings of the connection.
        cancelled: Function that returns whether to give the request up; called repeatedly.

    Raises:
        ValueError: Keys are missing or broken.
    """

    def __init__(self, settings: LinkSettings, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.settings, self._cancelled = settings, cancelled
        self._keys: tuple[bytes, bytes, bytes] | None = None
        if settings.keys is not None:
            folder = Path(settings.keys).expanduser()
            self._keys = (*load_pair(folder, "client"), load_public(folder, "server"))
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._poller = zmq.Poller()
        self._random = random.Random()
        self._id = 0
        self._trouble, self._shaken = "no answer", False
        self._largest = SMALL
        self.additions: tuple[str, ...] = ()
        """Additions to the protocol that the server knows, see `greet`."""
        self.last_contact = 0.0
        """Time of the last message of the server (s, monotonic)."""

    def greet(self, software: str) -> p.Welcome:
        """Ask for the server's welcome, and use the additions that both sides know from now on.

        A server from before the first addition does not understand a greeting that names additions.

        Args:
            software: Name and version of the client.

        Raises:
            DeviceError: See `request`.
        """
        self.additions = p.ADDITIONS
        try:
            welcome = self.request("hello", p.Hello(software, p.ADDITIONS)).read(p.Welcome)
        except p.MalformedError:
            self.additions = ()
            welcome = self.request("hello", p.Hello(software)).read(p.Welcome)
        self.additions = tuple(name for name in p.ADDITIONS if name in welcome.additions)
        return welcome

    def request(
        self,
        op: p.Operation,
        body: object,
        tensors: Sequence[memoryview] = (),
        lease: str = "",
        sequence: int = 0,
        job_time: float = 0.0,
    ) -> Reply:
        """Send a request until it is answered, and return the answer.

        Args:
            op: Operation of the request.
            body: Body of the request.
            tensors: Frames of the tensors.
            lease: Token of the lease; empty if the operation needs none.
            sequence: Number of the job; 0 for other requests.
            job_time: Time that the server may take for the job (s), during which it reports that the job is running.

        Raises:
            ConnectionLostError: The server was silent or busy for longer than the patience, or the job takes too long.
            DeviceError: The device failed, or server and client do not understand each other.
            ValueError: The device cannot carry out the request.
            Refusal: The lease is lost.
        """
        self._id += 1
        packed = pack(body, self.additions)
        checksum = p.digest([packed, *tensors]) if sequence else ""
        frames = p.request_frames(p.Head(op, self._id, lease, sequence, checksum), packed, tensors)
        begin = since = time.monotonic()
        attempt = 0
        end = begin + job_time + 2 * self.settings.patience
        while True:
            alive, reply, pause = self._attempt(frames, end)
            if reply is not None:
                return reply
            moment = time.monotonic()
            since = moment if alive else since
            if self._cancelled() or moment - since + pause > self.settings.patience:
                raise p.ConnectionLostError(
                    f"{self.settings.peer}: {self._trouble}, for {moment - since:.1f} s. Is it running and is the "
                    f"address right ({self.settings.question})? "
                    f"Wait longer with more than patience={self.settings.patience:g}"
                )
            if moment > end:
                raise p.ConnectionLostError(
                    f"{self.settings.peer}: it still says that the job is running, after "
                    f"{moment - begin:.1f} s, and allows {job_time:g} s. Look after it"
                )
            attempt = 0 if alive else attempt + 1
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16))
            self._sleep(max(pause, 0.0 if alive else longest * self._random.uniform(0.5, 1.5)))

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._hang_up()
        if self._context is not None:
            self._context.term()
            self._context = None

    def expect(self, largest: int) -> None:
        """Accept frames of up to `largest` bytes from now on; ZeroMQ ends a connection with larger ones."""
        if largest != self._largest:
            self._largest = largest
            self._hang_up()

    def _attempt(self, frames: Sequence[bytes | memoryview], end: float) -> tuple[bool, Reply | None, float]:
        """Send once and wait until `end` at most.

        Return whether the job is in progress, the answer if there is one, and the pause before the next attempt (s).
        """
        socket = self._socket or self._connect()
        timeout = min(self.settings.timeout, self.settings.patience)
        deadline = time.monotonic() + timeout
        alive = False
        try:
            socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            while (parts := self._receive(socket, min(deadline, end))) is not None:
                answer = self._understand(parts)
                if isinstance(answer, Reply):
                    return True, answer, 0.0
                if isinstance(answer, float):
                    return False, None, answer
                if answer is p.Pending:
                    alive = True
                    deadline = time.monotonic() + timeout
        except zmq.Again:
            self._trouble = "nothing could be sent"
        if not alive:
            self._hang_up()
        return alive, None, 0.0

    def _understand(self, parts: Sequence[memoryview]) -> Reply | float | type[p.Pending] | None:
        """Return an answer, a pause (s), a sign of progress, or None for a message of no use."""
        try:
            head, body, tensors = p.parse_reply(parts)
            if head.id not in (self._id, 0) or (head.id == 0 and head.status != "error"):
                return None  # the answer to a request that was repeated
            self.last_contact = time.monotonic()
            if head.status == "ok":
                return Reply(body, tensors)
            if head.status == "pending":
                return p.Pending
            return self._complain(unpack(p.Failure, body))
        except WireError as error:
            self._trouble = f"what it answers makes no sense ({error})"
            return None
        except p.Refusal as refusal:
            if refusal.code == "version":
                raise DeviceError(f"{self.settings.peer}: {refusal.text}") from None
            raise

    def _complain(self, failure: p.Failure) -> float:
        """Raise the error of an error reply; return a pause (s) if the request may be repeated."""
        prefix = f"{self.settings.peer}: {failure.text}"
        if failure.code == "busy":
            self._trouble = failure.text
            return min(max(failure.retry_after or 0.0, 0.01), LONGEST_PAUSE)
        if failure.code == "lease_lost":
            raise p.Refusal("lease_lost", failure.text)
        if failure.code == "device":
            raise DeviceError(failure.text)
        if failure.code in ("value", "too_large"):
            raise ValueError(failure.text)
        if failure.code == "internal":
            raise p.RemoteBugError(f"{prefix}. The server's log has the details")
        raise (p.MalformedError if failure.code == "malformed" else DeviceError)(f"{prefix} ({failure.code})")

    def _connect(self) -> zmq.Socket[bytes]:
        """Open a connection, with a monitor that reports its events."""
        if self._context is None:
            self._context = zmq.Context()
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, self._largest)
        socket.copy_threshold = p.COPIED
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(LONGEST_PAUSE * 1000))
        socket.setsockopt(zmq.IPV6, int("[" in self.settings.endpoint))
        if self._keys is not None:
            socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = self._keys
        events = 0
        for event in EVENTS:
            events |= event
        self._socket = socket
        self._monitor = socket.get_monitor_socket(events)
        try:
            socket.connect(self.settings.endpoint)
        except zmq.ZMQError as error:
            self._hang_up()
            raise ValueError(f"address={self.settings.address!r}: {error.strerror}") from None
        self._shaken = False
        self._poller = zmq.Poller()
        for source in (socket, self._monitor):
            self._poller.register(source, zmq.POLLIN)
        return socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(0)
        if self._monitor is not None:
            self._monitor.close(0)
        self._socket = self._monitor = None

    def _receive(self, socket: zmq.Socket[bytes], deadline: float) -> list[memoryview] | None:
        """Return the next message; None if the time is over, the connection is broken or the caller gave up."""
        monitor = self._monitor
        assert monitor is not None
        while (left := deadline - time.monotonic()) > 0 and not self._cancelled():
            ready = dict(self._poller.poll(int(min(left, TICK) * 1000) + 1))
            if socket in ready:
                return [frame.buffer for frame in socket.recv_multipart(copy=False)]
            if monitor in ready and self._read_event(monitor):
                return None
        return None

    def _read_event(self, monitor: zmq.Socket[bytes]) -> bool:
        """Read an event of the connection; return whether the request is lost."""
        event = zmq.Event(parse_monitor_message(monitor.recv_multipart())["event"])
        self._shaken = self._shaken or event == zmq.Event.HANDSHAKE_SUCCEEDED
        self._trouble = EVENTS[event] if self._shaken or event != zmq.Event.DISCONNECTED else NO_HANDSHAKE
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            raise DeviceError(
                f"{self.settings.peer}: {self._trouble}. Give its operator client.key of "
                f"{self.settings.keys} for the server's folder authorised/"
            )
        return event == zmq.Event.DISCONNECTED

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._cancelled():
            time.sleep(min(left, TICK))


def tell(settings: LinkSettings, op: p.Operation, body: object, lease: str, otherwise: str) -> None:
    """Send a request through a separate connection, with little patience; a failure is a warning.

    Args:
        settings: Settings of the connection.
        op: Operation of the request.
        body: Body of the request.
        lease: Token of the lease; empty if the operation needs none.
        otherwise: What a failure means.
    """
    last = Link(replace(settings, timeout=0.5, patience=1.0))
    try:
        last.request(op, body, lease=lease)
    except (DeviceError, ValueError, p.Refusal) as error:
        log.warning("%s: %s", otherwise, error)
    finally:
        last.close()
