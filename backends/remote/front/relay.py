"""The process that peers talk to: it reads all messages and passes on as many as the server has time for.

libzmq aborts its process in states that a peer can bring about (a full pipe and a broken connection, among others),
and it collects unfinished messages without bound. So it runs in this process, apart from the device, and `Front`
restarts it when it ends. This file runs as a script.

A peer never stops the reading of its connection: the socket has no high-water mark. Instead, the relay bounds the
messages that wait for the server: those of the lease's holder come first, the others one of each connection in turn.
The relay withholds a message that is too large, or large and not of the lease's holder: the server gets its head and
size only.

Messages between relay and server, in both directions, begin with a frame of one letter, below. This file and `channel`
need nothing but ZeroMQ.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import zmq

if __package__:
    from .channel import Channel, Memory
else:  # as a script
    from channel import Channel, Memory  # type: ignore[import-not-found,no-redef]

READY = b"R"
"""To the server: the relay listens."""
MESSAGE = b"M"
"""To the server: a message of a peer."""
QUESTION = b"Q"
"""To the server: a question whether a key is authorised."""
DROPPED = b"D"
"""To the server: the number of dropped messages."""
ANSWER = b"A"
"""To the relay: a message for a peer."""
CREDIT = b"C"
"""To the relay: `WINDOW // 2` more messages may come."""
LEASE = b"L"
"""To the relay: the token of the lease."""
VERDICT = b"V"
"""To the relay: the answer to a question."""
END = b"E"
"""To the relay: the end."""
FACTS = struct.Struct("<QIBB")
"""Facts of a message: bytes, frames, whether it names the lease, whether it is whole."""
WINDOW = 4
"""Largest number of messages that the server has received and not yet read."""
LARGEST_HEAD = 1024
SMALL = 4096
"""Largest message that the relay passes on for any peer (bytes)."""
MOST_OF_ONE, MOST_OF_ALL = 16, 2048
"""Largest numbers of waiting messages without the lease, of one connection and of all connections."""
MOST_OF_HOLDER = 32
"""Largest number of waiting messages of the lease's holder."""
AT_ONCE = 128
"""Largest number of messages of peers that are read between two looks at the server."""
HANDSHAKE = 3000
"""Time limit of the handshake of a connection (ms)."""
RETRY = 2
"""Time after which the relay tries again to send a message without room (ms)."""
UNSENT = 32
"""Largest number of replies that wait for one peer; further ones are dropped."""


Message = list[bytes | memoryview]


@dataclass(frozen=True)
class Settings:
    """Settings that the server passes to its relay.

    Attributes:
        descriptor: Descriptor of the listening socket.
        address: Address of the listening socket.
        channel: Descriptors of a socket, of the memory to the server, and of the memory to the relay.
        max_message: Largest message (bytes).
        most_frames: Largest number of frames of a message.
        memory: Memory limit of this process (bytes).
        linger: Time for sending the last replies at the end (ms).
        public: Public key of the server; empty without keys.
        secret: Secret key of the server; empty without keys.
        busy: Frames of the reply to a dropped message, hexadecimal.
    """

    descriptor: int
    address: str
    channel: tuple[int, int, int]
    max_message: int
    most_frames: int
    memory: int
    linger: int
    public: str
    secret: str
    busy: Sequence[str]


class Backlog:
    """Messages that wait for the server."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._holder: deque[tuple[int, Message]] = deque()
        self._holder_size = 0
        self._by_connection: OrderedDict[bytes, deque[Message]] = OrderedDict()
        self._count = 0

    def put(self, route: bytes, message: Message, size: int, leased: bool) -> bool:
        """Add a message; False if there are too many."""
        if leased:
            if len(self._holder) >= MOST_OF_HOLDER or self._holder_size + size > self._largest:
                return False
            self._holder.append((size, message))
            self._holder_size += size
            return True
        waiting = self._by_connection.get(route, ())
        if len(waiting) >= MOST_OF_ONE or self._count >= MOST_OF_ALL:
            return False
        self._by_connection.setdefault(route, deque()).append(message)
        self._count += 1
        return True

    def take(self) -> Message | None:
        """Return the next message; None if there is none."""
        if self._holder:
            size, message = self._holder.popleft()
            self._holder_size -= size
            return message
        if not self._by_connection:
            return None
        route, waiting = self._by_connection.popitem(last=False)
        message = waiting.popleft()
        if waiting:
            self._by_connection[route] = waiting  # to the end of the line
        self._count -= 1
        return message


class Relay:
    """Passes messages between peers and the server until the server ends."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        end, outgoing, incoming = settings.channel
        self._link = Channel(socket.socket(fileno=end), Memory(outgoing), Memory(incoming))
        self._authority = self._context.socket(zmq.ROUTER) if settings.public else None
        self._router = self._context.socket(zmq.ROUTER)
        self._backlog = Backlog(4 * settings.max_message)
        self._busy = [bytes.fromhex(frame) for frame in settings.busy]
        self._credit = WINDOW
        self._token = b""
        self._dropped = 0

    def serve(self) -> None:
        """Pass messages on until the server sends `END` or is gone."""
        self._connect()
        poller = zmq.Poller()
        for source in (self._link.fileno(), self._router, self._authority, sys.stdin.fileno()):
            if source is not None:
                poller.register(source, zmq.POLLIN)
        self._link.send(READY)
        while True:
            ready = dict(poller.poll(RETRY if self._link.is_blocked else None))
            if sys.stdin.fileno() in ready or (self._link.fileno() in ready and not self._read_server()):
                break
            self._link.flush()
            if self._authority is not None and self._authority in ready:
                self._ask_server(self._authority)
            if self._router in ready:
                self._drain()
            self._feed()
        for end in (self._router, self._authority):
            if end is not None:
                end.close()
        self._context.term()

    def _connect(self) -> None:
        settings, router = self.settings, self._router
        router.setsockopt(zmq.LINGER, settings.linger)
        router.setsockopt(zmq.RCVHWM, 0)  # with a mark, a full pipe and a broken connection end in abort()
        router.setsockopt(zmq.SNDHWM, UNSENT)
        router.setsockopt(zmq.MAXMSGSIZE, 2 * settings.max_message)  # beyond it, ZeroMQ cuts the connection
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
        router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        router.setsockopt(zmq.IPV6, int("[" in settings.address))
        if self._authority is not None:
            self._authority.bind("inproc://zeromq.zap.01")
            router.curve_publickey, router.curve_secretkey = settings.public.encode(), settings.secret.encode()
            router.curve_server = True
            router.zap_domain = b"hxtrain"
        router.setsockopt(zmq.USE_FD, settings.descriptor)
        router.bind(settings.address)

    def _read_server(self) -> bool:
        """Carry out the server's messages; return False at the end."""
        while (message := self._link.receive()) is not None:
            letter, *frames = message
            if letter == ANSWER:
                self._send([frames[0].tobytes(), *frames[1:]])
            elif letter == CREDIT:
                self._credit += WINDOW // 2
            elif letter == LEASE:
                self._token = frames[0].tobytes()
            elif letter == VERDICT and self._authority is not None:
                sender, *verdict = (frame.tobytes() for frame in frames)
                self._authority.send_multipart([sender, b"", b"1.0", *verdict, b""], zmq.NOBLOCK)
            elif letter == END:
                return False
        return True

    def _send(self, frames: Sequence[bytes | memoryview]) -> None:
        with suppress(zmq.ZMQError):  # the peer has gone or does not read: it asks again if it lives
            self._router.send_multipart(frames, zmq.NOBLOCK)  # a copy: frames may lie in shared memory

    def _ask_server(self, authority: zmq.Socket[bytes]) -> None:
        """Pass on a question of ZeroMQ's authentication protocol (RFC 27): identity, number, address, key."""
        frames = authority.recv_multipart()
        if len(frames) == 9 and frames[7] == b"CURVE":
            self._link.send(QUESTION, frames[0], frames[3], frames[5], frames[8])
        elif len(frames) > 3:
            authority.send_multipart([frames[0], b"", b"1.0", frames[3], b"400", b"not authorised", b"", b""])

    def _drain(self) -> None:
        for _ in range(AT_ONCE):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._take(frames)
            self._feed()

    def _take(self, frames: list[zmq.Frame]) -> None:
        """Add a message to the backlog, or answer that there are too many."""
        route = frames[0].bytes
        parts = frames[1:]
        size = sum(len(part) for part in parts)
        head = parts[1].bytes if len(parts) > 1 and len(parts[1]) <= LARGEST_HEAD else b""
        leased = bool(self._token) and self._token in head
        large = size > SMALL and not leased
        whole = not large and size <= self.settings.max_message and len(parts) <= self.settings.most_frames
        facts = FACTS.pack(size, len(parts), leased, whole)
        content = [part.buffer for part in parts] if whole else [*(part.buffer[:16] for part in parts[:1]), head]
        user, address = self._origin(frames[-1])
        message = [MESSAGE, route, user, address, facts, *content]
        if not self._backlog.put(route, message, size if whole else 0, leased):
            self._dropped += 1
            self._send([route, *self._busy])

    def _origin(self, frame: zmq.Frame) -> tuple[bytes, bytes]:
        """Return the peer's key (empty without keys) and address; local sockets have the user's number."""
        user = str(frame.get("User-Id")) if self._authority is not None else ""
        try:
            address = str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            address = ""
        if address.startswith(":"):  # :user:group:process
            address = f"user {address.split(':')[1]}"
        return user.encode(), address.encode()

    def _feed(self) -> None:
        if self._dropped and self._credit:
            self._link.send(DROPPED, str(self._dropped).encode())
            self._dropped = 0
        while self._credit and (message := self._backlog.take()) is not None:
            self._link.send(*message)
            self._credit -= 1


def _limit(memory: int) -> None:
    """Raise the limit of descriptors as far as possible, and limit the memory of the process."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS knows a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Run a relay; the first line of the standard input holds its settings, and the relay ends with that input."""
    line = b""
    while not line.endswith(b"\n"):
        letter = os.read(0, 1)
        if not letter:
            return
        line += letter
    settings = Settings(**json.loads(line))
    _limit(settings.memory)
    Relay(settings).serve()


if __name__ == "__main__":
    main()
