"""The protocol between a chip server and its clients, version 2 (docs/protocol.md).

A message is a multipart ZeroMQ message: a prefix with the version, a head, a body (both msgpack), and one frame
per tensor. Requests have the head `Head`, replies `ReplyHead`; each operation has its own body.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import zmq

from hxtrain.backends.capabilities import Capabilities
from hxtrain.backends.circuit import ADDITION, Circuit
from hxtrain.backends.ranges import DURATION, POSITIVE, Range, misfits
from hxtrain.backends.recording import Cost, DeviceError, Health, check_clock

from .wire import LARGEST_PART, Exact, Lines, WireError, pack, unpack

MAGIC: Final = b"hxtrain"
VERSION: Final = 2
PREFIX: Final = MAGIC + bytes([VERSION])
GREETING: Final = "greeting"
"""Addition that lets both sides name the additions that they know."""
ADDITIONS: Final = (GREETING, "record", "abilities", "sharing")
"""Additions to this version that this software knows."""
MOST_FRAMES = 256
"""Largest number of frames of one message."""
MOST_PIECES = 16
"""Largest number of runs of the device in one job."""
LARGEST_HEAD = 2**10
"""Longest head of a request (bytes)."""
LARGEST_BODY = 2**10
"""Longest body of a request other than a job (bytes)."""
COPIED = 2**20
"""Frames up to this size are copied when they are sent (bytes), which is faster than tracking their memory."""

Operation = Literal[
    "hello", "lease", "heartbeat", "configure", "run", "cancel", "health", "status", "metrics", "release", "claim"
]
JOBS: Final = ("configure", "run")
"""Operations for the device; the server reads their bodies only with a lease."""
Code = Literal[
    "device",  # the device failed: DeviceError
    "value",  # the request is not possible: ValueError
    "internal",  # the backend failed in an unforeseen way
    "busy",  # try again after `retry_after`
    "version",  # another version of this protocol
    "too_large",  # the message, or the recording that it asks for
    "malformed",  # not a message of this protocol
    "stale",  # a later batch of this client has been run since
    "not_authorised",  # the lease or client id is another user's
    "lease_lost",  # the lease is over; ask for a new one
]
DType = Literal["uint8", "int8", "int16", "int32", "int64", "float32", "bool"]
Status = Literal["ok", "pending", "error"]
BytesLike = bytes | memoryview | zmq.Frame


class Refusal(Exception):  # noqa: N818 - a reply, not a failure of the server
    """An error reply: its code, a text that says what to do next, and the time before a new attempt (s)."""

    def __init__(self, code: Code, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.code: Code = code
        self.text, self.retry_after = text, retry_after


class ConnectionLostError(DeviceError):
    """The server did not answer for longer than the client's patience."""


class MalformedError(DeviceError):
    """The server did not understand the request."""


class RemoteBugError(DeviceError):
    """The backend behind the server failed in an unforeseen way; the server's log has the details."""


@dataclass(frozen=True)
class Head:
    """Head of a request.

    Attributes:
        op: Operation.
        id: Number of the request, chosen by the client; the reply has the same number.
        lease: Token of the lease; empty if the operation needs none.
        sequence: Number of the job (`configure`, `run`), ascending for each client; a repeated job has the same number.
        digest: SHA-256 of body and tensors of a job, hexadecimal; empty for other operations.
    """

    op: Operation
    id: int
    lease: str
    sequence: int
    digest: str


@dataclass(frozen=True)
class ReplyHead:
    """Head of a reply: the request's number, and whether the body is an answer, a `Pending` or a `Failure`."""

    id: int
    status: Status


@dataclass(frozen=True)
class Failure:
    """Body of an error reply; `retry_after` in s."""

    code: Code
    text: str
    retry_after: float | None


@dataclass(frozen=True)
class Empty:
    """A body without fields."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        max_message: Largest size of a message, and of a recording (bytes).
        max_rate: Requests per second of one client, on average.
        run_timeout: Longest job (s); after it, the client gets the error that the device hangs.
        heartbeat_timeout: Silence of the holder after which a lease is over (s).
        lease_time: Duration of a lease while others wait (s).
    """

    max_message: int
    max_rate: float
    run_timeout: float
    heartbeat_timeout: float
    lease_time: float

    def __post_init__(self) -> None:
        problems = misfits(self, _LIMITS)
        if problems:
            raise ValueError("; ".join(problems))


_LIMITS = {
    "max_message": Range(1, 2**40, whole=True, unit="bytes"),
    "max_rate": POSITIVE,
    "run_timeout": DURATION,
    "heartbeat_timeout": DURATION,
    "lease_time": Range(0, unit="s"),
}


@dataclass(frozen=True)
class Hello:
    """Request for the server's `Welcome`.

    Attributes:
        software: Name and version of the client.
        additions: Names of the additions to this version that the client knows.
    """

    software: str
    additions: tuple[str, ...] = field(default=(), metadata={ADDITION: GREETING})


@dataclass(frozen=True)
class Welcome:
    """Answer to `Hello`.

    Attributes:
        software: Name and version of the server.
        instance: Random name of the server, which changes with each start.
        capabilities: Capabilities of the device.
        identity: Identity of the device.
        limits: Limits of the server.
        additions: Names of the additions to this version that the server knows.
    """

    software: str
    instance: str
    capabilities: Capabilities
    identity: Mapping[str, str]
    limits: Limits
    additions: tuple[str, ...] = field(default=(), metadata={ADDITION: GREETING})


@dataclass(frozen=True)
class Ask:
    """Request for the lease, or for the place in the queue.

    Attributes:
        client: Random name of this client, which stays the same after a reconnection.
        label: Label for people, e.g. `user@host:pid`.
    """

    client: str
    label: Exact

    def __post_init__(self) -> None:
        if not (8 <= len(self.client) <= 64 and self.client.isalnum()):
            raise ValueError(f"client={ascii(self.client)[:80]} must be 8 to 64 letters and digits")
        if len(self.label) > 128:
            raise ValueError(f"label={self.label[:80]} must have at most 128 characters")


@dataclass(frozen=True)
class Place:
    """Answer to `Ask`.

    Attributes:
        lease: Token of the lease; None in the queue.
        position: 0 for the holder, 1 for the first in the queue, ...
        estimate: Estimate of the longest wait (s).
        again: Time after which to ask again (s).
    """

    lease: str | None
    position: int
    estimate: float
    again: float  # language: a key of messages


@dataclass(frozen=True)
class Configure:
    """A job: place a circuit."""

    circuit: Circuit


@dataclass(frozen=True)
class Configured:
    """Answer to `Configure`."""

    identity: Mapping[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A tensor in a separate frame (little endian, C order); `frame` counts from 0 after the body."""

    frame: int
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Events:
    """Spikes: `sample` ascending and `unit` int16, int32 or int64 `[E]`, `time` float32 `[E]` in s."""

    samples: int
    units: int
    sample: Block
    unit: Block
    time: Block


@dataclass(frozen=True)
class Run:
    """A job: runs of the device, one after the other, with the same weights.

    Attributes:
        clock: Place of the first trial on the clock.
        weights: Integers `[post, pre]` by projection.
        sizes: Number of trials of each run.
        spikes: Input events of all runs.
    """

    clock: int
    weights: Mapping[str, Block]
    sizes: tuple[int, ...]
    spikes: Events

    def __post_init__(self) -> None:
        check_clock(self.clock, self.spikes.samples)


@dataclass(frozen=True)
class Cancel:
    """Request to end a job if it is running; its answer then lacks the remaining runs."""

    sequence: int


@dataclass(frozen=True)
class Piece:
    """A run with a recording: its cost, health and clock, and the time that the backend took (s)."""

    cost: Cost
    health: Health
    clock: int | None
    seconds: float


@dataclass(frozen=True)
class Ran:
    """Answer to `Run`.

    Attributes:
        pieces: Facts of each run; None if the device failed or the run was not executed.
        errors: Text of the device's error for each run, else an empty text. None in `pieces` with an empty text means
            that this run and all later ones were not executed: the job was cancelled, or its answer is full.
        spikes: Events of the trials of all runs with a recording, one after the other.
        traces: Codes of the same trials.
        lost: Flags of the lost ones among the same trials.
    """

    pieces: tuple[Piece | None, ...]
    errors: tuple[str, ...]
    spikes: Mapping[str, Events]
    traces: Mapping[str, Block]
    lost: Block | None


@dataclass(frozen=True)
class Pending:
    """Answer to a repeated job that has been running for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Client:
    """A client in a report: its label, and how long it has held the lease or waited (s)."""

    label: str
    seconds: float


@dataclass(frozen=True)
class DeviceHealth:
    """State of the device, and counts of errors and losses since the server started."""

    state: Literal["idle", "busy", "stuck"]
    job_seconds: float
    errors: Mapping[str, int]
    last_error: str
    dropped_spikes: int
    retries: int
    lost_trials: int


@dataclass(frozen=True)
class Report:
    """Answer to `status`.

    Attributes:
        software: Name and version of the server.
        identity: Identity of the device.
        uptime: Time since the start (s).
        health: Health of the device.
        holder: Holder of the lease.
        queue: Waiting clients.
        runs: Number of runs since the start.
        trials: Number of trials since the start.
        trials_per_second: Mean rate over the last minute.
        duplicates: Number of repeated jobs that were answered without another execution.
        errors: Number of error replies by code.
    """

    software: str
    identity: Mapping[str, str]
    uptime: float
    health: DeviceHealth
    holder: Client | None
    queue: tuple[Client, ...]
    runs: int
    trials: int
    trials_per_second: float
    duplicates: int
    errors: Mapping[str, int]


@dataclass(frozen=True)
class Text:
    """Answer to `metrics`: Prometheus' text format."""

    text: Lines


@dataclass(frozen=True)
class Request:
    """A parsed request; body and tensors are raw (and empty if the front withheld them)."""

    head: Head
    body: memoryview
    tensors: list[memoryview]

    def digest_matches(self) -> bool:
        """Return whether body and tensors have the digest of the head."""
        return digest([self.body, *self.tensors]) == self.head.digest


def digest(parts: Sequence[bytes | memoryview]) -> str:
    """Return the SHA-256 of body and tensors, each after its length (64 bits, little endian)."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()


def request_frames(head: Head, body: bytes, tensors: Sequence[memoryview] = ()) -> list[Any]:
    """Return the frames of a request."""
    return [PREFIX, pack(head), body, *tensors]


def reply_frames(head: ReplyHead, body: bytes, tensors: Sequence[memoryview] = ()) -> list[Any]:
    """Return the frames of a reply."""
    return [PREFIX, pack(head), body, *tensors]


def check_message_size(count: int, size: int, max_message: int) -> None:
    """Check a message's number of frames and bytes.

    Raises:
        Refusal: The message is too large.
    """
    if size > max_message or count > MOST_FRAMES:
        text = f"a message of {count} frames and {size} bytes; {MOST_FRAMES} and {max_message} are taken"
        raise Refusal("too_large", f"{text}. Send fewer samples at once")


def parse_request(frames: Sequence[memoryview], count: int) -> Request:
    """Return a request.

    Args:
        frames: Prefix, head, body and tensors; prefix and head only if the front withheld the rest.
        count: Number of frames that the client sent.

    Raises:
        Refusal: The version is another one, or the request is malformed.
    """
    prefix = bytes(frames[0][:16]) if frames else b""
    if prefix[: len(MAGIC)] != MAGIC or len(frames[0]) != len(PREFIX):
        raise Refusal("malformed", f"the first frame must be {PREFIX!r}; is this a client of hxtrain?")
    if prefix != PREFIX:
        text = f"the client speaks version {prefix[-1]} of the protocol, the server version {VERSION}"
        raise Refusal("version", f"{text}; install the same hxtrain on both sides")
    if count < 3:
        raise Refusal("malformed", f"a request has at least 3 frames, this one {count}")
    if not 0 < len(frames[1]) <= LARGEST_HEAD:
        raise Refusal("malformed", f"a head has 1 to {LARGEST_HEAD} bytes")
    try:
        head = unpack(Head, frames[1])
    except WireError as error:
        raise Refusal("malformed", str(error)) from None
    return Request(head, frames[2] if len(frames) > 2 else memoryview(b""), list(frames[3:]))


def parse_reply(frames: Sequence[memoryview]) -> tuple[ReplyHead, memoryview, list[memoryview]]:
    """Return head, body and tensors of a reply.

    Raises:
        WireError: The frames are no reply.
        Refusal: The server speaks another version.
    """
    if len(frames) < 3 or bytes(frames[0][: len(MAGIC)]) != MAGIC or len(frames[0]) != len(PREFIX):
        raise WireError("what came is not a reply of an hxtrain server")
    if frames[0] != PREFIX:
        text = f"the server speaks version {frames[0][-1]} of the protocol, this client version {VERSION}"
        raise Refusal("version", f"{text}; install the same hxtrain on both sides")
    return unpack(ReplyHead, frames[1]), frames[2], list(frames[3:])


def read_body(kind: type[Any], request: Request) -> Any:
    """Return a request's body; requests other than jobs have a small body and no tensors.

    Raises:
        Refusal: The body is malformed or too long, or there are unexpected tensors.
    """
    op = request.head.op
    if request.tensors and op != "run":
        raise Refusal("malformed", f"{op} takes no tensors")
    if len(request.body) > (largest := LARGEST_PART if op in JOBS else LARGEST_BODY):
        raise Refusal("malformed", f"{op}: a body of {len(request.body)} bytes, at most {largest} are taken")
    try:
        return unpack(kind, request.body)
    except WireError as error:
        raise Refusal("malformed", str(error)) from None
