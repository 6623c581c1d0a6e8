"""The server's side of its front: starts the relay, again when it ends, and exchanges messages with it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import zmq

from . import relay

log = logging.getLogger(__name__)
START = 60.0
"""Longest start of a relay (s)."""
SOUND = 10.0
"""A relay that ran for so long (s) is replaced at once; else after a pause that doubles."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Pauses before a relay is started again (s)."""
MEMORY = 512 * 2**20
"""Memory of a relay besides messages (bytes)."""


@dataclass(frozen=True)
class Arrival:
    """A message of a peer.

    Attributes:
        route: where a reply goes.
        user: public key of the peer; empty without keys.
        address: of the peer.
        size, count: bytes and frames of the message.
        leased: its head names the lease.
        whole: frames are all of it; else they are its prefix and head.
        frames: without the route.
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
    """Whether a key (32 bytes) is authorised; `ticket` goes back with the verdict."""

    ticket: tuple[bytes, bytes]
    address: str
    key: bytes


@dataclass(frozen=True)
class Dropped:
    """So many messages were answered with `busy` unread."""

    count: int


Event = Arrival | Question | Dropped


class Front:
    """A relay in a process of its own, and its replacement when it ends.

    Args:
        context: of the link to it.
        descriptor: the listening socket; it outlives relays.
        address: of that socket.
        keys: public and secret key of the server; None without keys.
        max_message: largest message (bytes).
        most_frames: of a message.
        busy: frames of the reply to a message that is dropped.
        linger: time in which the last replies may leave (s).

    Attributes:
        link: readable when there are events; another one after `revive`.
        restarts: relays that ended and were replaced.

    Raises:
        ValueError: no relay starts.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        descriptor: int,
        address: str,
        keys: tuple[bytes, bytes] | None,
        max_message: int,
        most_frames: int,
        busy: Sequence[bytes],
        linger: float,
    ) -> None:
        public, secret = ("", "") if keys is None else (key.decode() for key in keys)
        self._context, self._folder = context, Path(tempfile.mkdtemp(prefix="hxtrain-"))
        self._settings = relay.Settings(
            descriptor,
            address,
            "",
            max_message,
            most_frames,
            MEMORY + 8 * max_message,
            int(linger * 1000),
            public,
            secret,
            [frame.hex() for frame in busy],
        )
        self._linger = linger
        self.restarts, self._pause, self._token = 0, FIRST_PAUSE, b""
        self._started = self._next = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.link = self._start()
            self._await_relay()
        except BaseException:
            self.close()
            raise

    def receive(self) -> Event | None:
        """Return the next event; None if there is none."""
        while True:
            try:
                kind, *frames = self.link.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            letter = kind.bytes
            if letter == relay.MESSAGE:
                self._tell(relay.CREDIT)
                return _arrival(frames)
            if letter == relay.QUESTION:
                sender, number, address, key = (frame.bytes for frame in frames)
                return Question((sender, number), address.decode("ascii", "replace"), key)
            if letter == relay.DROPPED:
                return Dropped(int(frames[0].bytes))

    def send(self, route: bytes, frames: Sequence[bytes | memoryview]) -> None:
        """Send a message to a peer; it is dropped if that has gone or does not read."""
        self._tell(relay.ANSWER, route, *frames)

    def decide(self, question: Question, status: bytes, text: bytes, user: bytes) -> None:
        """Answer a question (status 200: welcome, 300: not now, 400: no)."""
        sender, number = question.ticket
        self._tell(relay.VERDICT, sender, number, status, text, user)

    def admit(self, token: str) -> None:
        """Say which lease is held; empty for none."""
        if token.encode() != self._token:
            self._token = token.encode()
            self._tell(relay.LEASE, self._token)

    def revive(self) -> bool:
        """Start another relay if the last one has ended and its pause is over; True if `link` is another one now."""
        process, now = self._process, time.monotonic()
        if process is not None:
            if process.poll() is None:
                return False
            self._process = None
            self._pause = FIRST_PAUSE if now - self._started > SOUND else min(2 * self._pause, LONGEST_PAUSE)
            self._next = now + self._pause
            log.error("the front ended (%s); the device goes on, another front starts", _ending(process.returncode))
        if now < self._next:
            return False
        self.link.close(0)
        self.link = self._start()
        self.restarts += 1
        return True

    def close(self) -> None:
        """End the relay, once the last replies have left."""
        if self._process is not None:
            self._tell(relay.END)
            try:
                self._process.wait(self._linger + 1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None
        if hasattr(self, "link"):
            self.link.close(0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> zmq.Socket[bytes]:
        """Start a relay and return the link to it."""
        place = f"ipc://{self._folder}/{self.restarts}"
        link = self._context.socket(zmq.DEALER)
        link.copy_threshold = 2**20
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            link.setsockopt(option, 0)  # the relay is bound by credit, and reads whatever comes
        link.bind(place)
        settings = {**asdict(self._settings), "link": place}
        process = subprocess.Popen(
            [sys.executable, relay.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._settings.descriptor,),
            start_new_session=True,  # a terminal's Ctrl-C is for the server
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        self._process, self._started = process, time.monotonic()
        if self._token:
            link.send_multipart([relay.LEASE, self._token])
        return link

    def _await_relay(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START
        while not self.link.poll(50):
            if self._process.poll() is not None or time.monotonic() > end:
                code = self._process.poll()
                self._process.kill()
                raise ValueError(f"the server's front did not start ({_ending(code)}); its reason is above")

    def _tell(self, *frames: bytes | memoryview) -> None:
        try:
            self.link.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:  # no relay is connected: its peers are gone, too
            log.debug("nothing was sent to the front: %s", error)


def _arrival(frames: list[zmq.Frame]) -> Arrival:
    route, user, address, facts = (frame.bytes for frame in frames[:4])
    size, count, leased, whole = relay.FACTS.unpack(facts)
    parts = [frame.buffer for frame in frames[4:]]
    return Arrival(route, user.decode(), address.decode(), size, count, bool(leased), bool(whole), parts)


def _ending(code: int | None) -> str:
    return "it hangs" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
