"""The server's side of its front: starts and restarts the relay, and exchanges messages with it."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from . import relay
from .channel import KIND, Channel, Memory, make_memory

log = logging.getLogger(__name__)
START = 60.0
"""Longest time for the start of a relay (s)."""
SOUND = 10.0
"""Running time after which a relay is replaced at once (s); replacement is delayed by a doubling pause before."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Pauses before a relay is started again (s)."""
LEAST = 2**22
"""Smallest memory for messages (bytes)."""
ROOM = 4
"""Number of largest messages that a memory holds, in each direction."""
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
"""Environment of relays; they keep the memory of messages (glibc), as the server does: new memory costs 0.3 ms."""
MEMORY = 512 * 2**20
"""Memory of a relay besides messages (bytes)."""


@dataclass(frozen=True)
class Arrival:
    """A message of a peer.

    Attributes:
        route: Route of the reply.
        user: Public key of the peer; empty without keys.
        address: Address of the peer.
        size: Size of the message (bytes).
        count: Number of frames of the message.
        leased: Whether the head names the lease.
        whole: Whether `frames` is the whole message; else it holds prefix and head only.
        frames: Frames without the route.
    """

    route: bytes
    user: str
    address: str
    size: int
    count: int
    leased: bool
    whole: bool
    frames: list[memoryview]


@dataclass(frozen=True)
class Question:
    """Question whether a key (32 bytes) is authorised; `ticket` goes back with the verdict."""

    ticket: tuple[bytes, bytes]
    address: str
    key: bytes


@dataclass(frozen=True)
class Dropped:
    """Number of messages that the relay answered with `busy`, unread."""

    count: int


Event = Arrival | Question | Dropped


class Front:
    """A relay in a process of its own, and its replacement when it ends.

    Args:
        descriptor: Descriptor of the listening socket, which outlives relays.
        address: Address of the listening socket.
        keys: Public and secret key of the server; None without keys.
        max_message: Largest message (bytes).
        most_frames: Largest number of frames of a message.
        busy: Frames of the reply to a dropped message.
        linger: Time for sending the last replies at the end (s).

    Attributes:
        link: Channel to the relay, readable when there are events; `revive` replaces it.
        restarts: Number of relays that ended and were replaced.

    Raises:
        ValueError: No relay starts.
    """

    def __init__(
        self,
        descriptor: int,
        address: str,
        keys: tuple[bytes, bytes] | None,
        max_message: int,
        most_frames: int,
        busy: Sequence[bytes],
        linger: float,
    ) -> None:
        public, secret = ("", "") if keys is None else (key.decode() for key in keys)
        self._settings = relay.Settings(
            descriptor,
            address,
            (0, 0, 0),
            max_message,
            most_frames,
            MEMORY + 8 * max_message,
            int(linger * 1000),
            public,
            secret,
            [frame.hex() for frame in busy],
        )
        self._linger = linger
        self.restarts = 0
        self._pause = FIRST_PAUSE
        self._token = b""
        self._owed = 0
        self._started = self._next = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._connect()
        try:
            self._start()
            self._await_relay()
        except BaseException:
            self.close()
            raise

    def receive(self) -> Event | None:
        """Return the next event; None if there is none."""
        self.link.flush()
        while (message := self._receive()) is not None:
            letter, *frames = message
            if letter == relay.MESSAGE:
                self._return_credit()
                return _arrival(frames)
            if letter == relay.QUESTION:
                sender, number, address, key = (frame.tobytes() for frame in frames)
                return Question((sender, number), address.decode("ascii", "replace"), key)
            if letter == relay.DROPPED:
                return Dropped(int(frames[0].tobytes()))
        return None

    def send(self, route: bytes, frames: Sequence[bytes | memoryview]) -> None:
        """Send a message to a peer; it is lost if the peer has gone or does not read."""
        self._tell(relay.ANSWER, route, *frames)

    def decide(self, question: Question, status: bytes, text: bytes, user: bytes) -> None:
        """Answer a question (status 200: accepted, 300: try again, 400: refused)."""
        sender, number = question.ticket
        self._tell(relay.VERDICT, sender, number, status, text, user)

    def admit(self, token: str) -> None:
        """Tell the relay the token of the current lease; empty for none."""
        if token.encode() != self._token:
            self._token = token.encode()
            self._tell(relay.LEASE, self._token)

    def revive(self) -> bool:
        """Replace a relay that has ended, after a pause; return whether `link` has been replaced."""
        process = self._process
        moment = time.monotonic()
        if process is None:
            if moment >= self._next:
                self._start()
            return False
        if process.poll() is None:
            return False
        self._pause = FIRST_PAUSE if moment - self._started > SOUND else min(2 * self._pause, LONGEST_PAUSE)
        self._next = moment + self._pause
        log.error("the front ended (%s); the device goes on, another front starts", _ending(process.returncode))
        self._discard()
        self._connect()
        self.restarts += 1
        return True

    def close(self) -> None:
        """End the relay after it has sent the last replies."""
        if self._process is not None:
            self._tell(relay.END)
            try:
                self._process.wait(self._linger + 1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._discard()

    def _connect(self) -> None:
        """Make the channel for the next relay."""
        near, self._far = socket.socketpair(socket.AF_UNIX, KIND)
        size = max(ROOM * self._settings.max_message, LEAST)
        self._memories = [make_memory(size) for _ in range(2)]
        incoming, outgoing = map(Memory, self._memories)
        self.link = Channel(near, outgoing, incoming)
        self._owed = 0
        if self._token:
            self.link.send(relay.LEASE, self._token)

    def _start(self) -> None:
        """Start a relay at the other end of the channel."""
        passed = (self._far.fileno(), *self._memories)
        settings = {**asdict(self._settings), "channel": passed}
        self._process = subprocess.Popen(
            [sys.executable, relay.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._settings.descriptor, *passed),
            start_new_session=True,  # a terminal's Ctrl-C is for the server
            env={**os.environ, **ENVIRONMENT},
        )
        self._started = time.monotonic()
        self._close_far_end()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()

    def _close_far_end(self) -> None:
        self._far.close()
        for descriptor in self._memories:
            os.close(descriptor)
        self._memories = []

    def _discard(self) -> None:
        """Discard a relay that has ended, and the channel to it."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
        self._close_far_end()
        self.link.close()

    def _await_relay(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START
        while not select.select([self.link], [], [], 0.05)[0]:
            if self._process.poll() is not None or time.monotonic() > end:
                code = self._process.poll()
                self._process.kill()
                raise ValueError(f"the server's front did not start ({_ending(code)}); its reason is above")

    def _return_credit(self) -> None:
        """Allow the relay one more message; it is notified for every second one only."""
        self._owed += 1
        if self._owed == relay.WINDOW // 2:
            self._tell(relay.CREDIT)
            self._owed = 0

    def _tell(self, *frames: bytes | memoryview) -> None:
        try:
            self.link.send(*frames)
        except ValueError as error:
            log.error("a reply is lost: %s", error)

    def _receive(self) -> list[memoryview] | None:
        try:
            return self.link.receive()
        except OSError:  # the relay has ended; `revive` replaces it
            return None


def _arrival(frames: list[memoryview]) -> Arrival:
    route, user, address, facts = (frame.tobytes() for frame in frames[:4])
    size, count, leased, whole = relay.FACTS.unpack(facts)
    parts = [memoryview(bytearray(frame)) for frame in frames[4:]]
    return Arrival(route, user.decode(), address.decode(), size, count, bool(leased), bool(whole), parts)


def _ending(code: int | None) -> str:
    return "it hangs" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
