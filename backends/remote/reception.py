"""Reception of requests from a network: a front, authentication, limits and errors; chip servers and pools are such."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Optional, Protocol

import zmq
from zmq.utils import z85

from hxtrain.backends.text import printable

from . import protocol as p
from .address import check_bind, listen
from .complaints import Complaints
from .front import Arrival, Dropped, Front, Question
from .jobs import Peer
from .keys import load_authorised, load_pair
from .leases import Origin
from .metrics import Counters
from .rates import Rates
from .wire import Exact, pack
from .worker import LONGEST_ERROR

log = logging.getLogger(__name__)
SOFTWARE = f"hxtrain {version('hxtrain')}"
KNOWN_USERS = 1024
"""Largest number of users whose names are kept."""
HOLDER = "the lease's holder"
"""Payer of requests that name the lease."""
AT_ONCE = 32
"""Largest number of events that are answered between two looks at everything else."""
TICK = 0.1
"""Longest time between two looks at leases and signals (s)."""
LINGER = 2.0
"""Time for sending the last replies at the end (s)."""


class Answer(NamedTuple):
    """How an operation is answered: type of the request's body, and function of body, token of the lease, and origin.

    The function returns the body of the answer, or that packed already.
    """

    body: type[Any]
    function: Callable[[Any, str, Origin], object]


class Holders(Protocol):
    """Bookkeeping of leases."""

    def holder(self, token: str, user: str, moment: float) -> object:
        """Record the contact with the holder of a lease.

        Raises:
            Refusal: Lease lost, or not authorised.
        """


@dataclass
class ReceptionSettings:
    """Settings of what answers requests of a network.

    Attributes:
        bind: Address, e.g. `tcp://127.0.0.1:5555`, `ipc:///run/chip.sock`; port `*` takes a free one.
        keys: Directory of keys (`hxtrain serve keys DIR`); None serves this machine only.
        insecure: Whether to serve other machines without keys: anyone there can then use the chip.
        max_message: Largest message and recording (bytes).
        max_rate: Requests per second of one client, on average.
    """

    bind: str = "tcp://127.0.0.1:5555"
    keys: Optional[str] = None  # noqa: UP045 - OmegaConf resolves it on every Python
    insecure: bool = False
    max_message: int = 64 * 2**20
    max_rate: float = 1000.0

    def __post_init__(self) -> None:
        check_bind(self.bind, self.keys, self.insecure)
        self.require_positive("max_message", "max_rate")

    def require_positive(self, *names: str) -> None:
        """Check settings that are positive numbers.

        Raises:
            ValueError: A setting is zero or negative.
        """
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


class Reception:
    """Answers requests until `stop`.

    Args:
        settings: Address, keys and limits.

    Attributes:
        address: Address of the listening socket.

    Raises:
        ValueError: Keys are missing or broken, or the address cannot be bound.
    """

    OTHERWISE: ClassVar[str]
    """Text for an operation `{}` that is for another kind of reception."""
    _desk: Holders

    def __init__(self, settings: ReceptionSettings) -> None:
        self._reception = settings
        pair = None if settings.keys is None else load_pair(Path(settings.keys).expanduser(), "server")
        self._listener = listen(settings.bind)
        self.address = self._listener.address
        descriptor = self._listener.socket.fileno()
        largest = settings.max_message
        try:
            self._front = Front(descriptor, self.address, pair, largest, p.MOST_FRAMES, _busy_frames(), LINGER)
        except BaseException:
            self._listener.close()
            raise
        self._counters = Counters(time.monotonic())
        self._rates = Rates(settings.max_rate)
        self._complaints = Complaints(log)
        self._stop = threading.Event()
        self._authorised: dict[bytes, str] | None = None
        self._names: dict[str, str] = {}
        self._answers: Mapping[p.Operation, Answer] = {}

    def stop(self) -> None:
        """Ask for the end; for signal handlers and other threads."""
        self._stop.set()

    def _look_after_front(self, poller: zmq.Poller) -> None:
        self._front.link.flush()
        descriptor = self._front.link.fileno()
        if self._front.revive():
            poller.unregister(descriptor)
            poller.register(self._front.link.fileno(), zmq.POLLIN)

    def _authenticate(self, question: Question) -> None:
        """Decide whether a key may connect; the key files are read each time."""
        key = z85.encode(question.key)
        try:
            names = load_authorised(Path(self._reception.keys or "").expanduser())
        except OSError as error:
            self._complaints.warn("keys", question.address, f"the authorised keys cannot be read for now: {error}")
            if self._authorised is None:
                self._front.decide(question, b"300", b"try again", b"")
                return
            names = self._authorised
        self._authorised = names
        name = names.get(key)
        if name is None:
            self._complaints.warn("not_authorised", question.address, "refused a connection without an authorised key")
            self._counters.refuse("not_authorised", "a connection without an authorised key")
            self._front.decide(question, b"400", b"not authorised", b"")
            return
        if len(self._names) >= KNOWN_USERS:
            self._names.clear()
        self._names[key.decode()] = name
        self._front.decide(question, b"200", b"OK", key)

    def _answer_some(self) -> None:
        for _ in range(AT_ONCE):
            event = self._front.receive()
            if event is None:
                return
            if isinstance(event, Question):
                self._authenticate(event)
            elif isinstance(event, Dropped):
                self._counters.refuse("busy", "more requests than the server has time for", event.count)
            else:
                self._answer(event)

    def _answer(self, arrival: Arrival) -> None:
        """Answer one message of any kind."""
        user = arrival.user
        address = arrival.address
        begin = time.monotonic()
        name = self._names.get(user, "unknown key") if user else address
        peer = Peer(arrival.route, 0, name)
        payer = HOLDER if arrival.leased else user or address
        self._counters.bytes_in += arrival.size
        try:
            self._rates.admit(payer, begin)
            self._answer_request(arrival, Origin(user, arrival.route.hex(), address), peer)
        except p.Refusal as refusal:
            self._refuse(peer, refusal)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._complaints.warn("internal", name, f"a request failed in an unforeseen way ({text})", error)
            self._refuse(peer, p.Refusal("internal", text))
        moment = time.monotonic()
        if arrival.leased:
            self._rates.charge(payer, moment)
        else:
            self._rates.charge(payer, moment, arrival.size, moment - begin)

    def _answer_request(self, arrival: Arrival, origin: Origin, peer: Peer) -> None:
        """Answer a request, or start its job.

        Raises:
            Refusal: The message is no request, or cannot be answered.
        """
        p.check_message_size(arrival.count, arrival.size, self._reception.max_message)
        request = p.parse_request(arrival.frames, arrival.count)
        op, peer.request = request.head.op, request.head.id
        self._counters.requests[op] += 1
        self._carry_out(request, origin, peer, arrival)

    def _carry_out(self, request: p.Request, origin: Origin, peer: Peer, arrival: Arrival) -> None:
        """Answer a request by the function for its operation.

        Raises:
            Refusal: There is no such function, or the request cannot be answered.
        """
        op = request.head.op
        if op not in self._answers:
            raise p.Refusal("value", self.OTHERWISE.format(op))
        if not arrival.whole:
            raise p.Refusal("malformed", f"{op}: a message of {arrival.size} bytes; only jobs are so large")
        kind, function = self._answers[op]
        answer = function(p.read_body(kind, request), request.head.lease, origin)
        self._send(peer, "ok", answer if isinstance(answer, bytes) else pack(answer))

    def _heartbeat(self, body: p.Empty, lease: str, origin: Origin) -> p.Empty:
        self._desk.holder(lease, origin.user, time.monotonic())
        return p.Empty()

    def _label(self, label: str, origin: Origin) -> Exact:
        """Return a client's label for people, with the name of its key if it has one."""
        if not origin.user:
            return Exact(label)
        return Exact(f"{self._names.get(origin.user, 'unknown key')} ({label})"[:128])

    def _refuse_when_closing(self) -> None:
        if self._stop.is_set():
            raise p.Refusal("busy", "the server is closing", 1.0)

    def _hang_up(self) -> None:
        self._front.close()
        self._listener.close()

    def _refuse(self, peer: Peer, refusal: p.Refusal) -> None:
        text = printable(refusal.text, LONGEST_ERROR)
        self._counters.refuse(refusal.code, text)
        self._send(peer, "error", pack(p.Failure(refusal.code, text, refusal.retry_after)))

    def _send(self, peer: Peer, status: p.Status, body: bytes, tensors: Sequence[memoryview] = ()) -> None:
        frames = p.reply_frames(p.ReplyHead(peer.request, status), body, tensors)
        self._counters.bytes_out += sum(len(frame) for frame in frames)
        self._front.send(peer.route, frames)


def _busy_frames() -> list[bytes]:
    """Return the frames of the reply to an unread request."""
    failure = p.Failure("busy", "more requests than the server has time for; ask less often", 0.2)
    return p.reply_frames(p.ReplyHead(0, "error"), pack(failure))
