"""Common parts of the tests of chip servers: a server in a thread, devices that count, a bad network."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from socket import socket as tcp_socket
from typing import Any

import torch
import zmq
from torch import Tensor

from hxtrain.backends import Backend, Capabilities, Circuit, Cost, DeviceError, Health, Recording, Spikes, Stimulus
from hxtrain.backends.reference import CAPABILITIES
from hxtrain.backends.remote import RemoteBackend, Server, ServerSettings

FREE_PORT = "tcp://127.0.0.1:*"
PATIENT = {"patience": 60.0, "timeout": 20.0}
"""Settings of clients that do not give up on a slow machine."""


def port_for_restarts() -> str:
    """Return an address that a second server can take over from the first one.

    The port is below those that the system gives to outgoing connections. From one of those, a client that knocks
    while nothing listens can come to be connected to itself, and then the port is in use.
    """
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.randrange(20_000, 32_000)
        with tcp_socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return f"tcp://127.0.0.1:{port}"
    raise OSError("no free port between 20000 and 32000")


class CountingBackend(Backend):
    """A device that records its clock, counts its runs, and does what `during` says in each."""

    def __init__(self, during: Callable[[int], None] = lambda run: None) -> None:
        self.clocks: list[int] = []
        self.circuits: list[Circuit] = []
        self.is_open = False
        self._during = during
        self._circuit: Circuit | None = None

    @property
    def capabilities(self) -> Capabilities:
        return replace(CAPABILITIES, selective=False)

    @property
    def identity(self) -> Mapping[str, str]:
        return {"backend": "reference", "chip": "counting", "chip_hash": "none"}

    @property
    def warnings(self) -> tuple[str, ...]:
        return () if self._circuit is None else (f"{len(self._circuit.populations)} populations",)

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open, self._circuit = False, None

    def configure(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self.circuits.append(circuit)

    def run(self, weights: Mapping[str, Tensor], stimulus: Stimulus) -> Recording:
        circuit = self._circuit
        if circuit is None:
            raise DeviceError("not configured")
        self.clocks.append(stimulus.clock)
        self._during(len(self.clocks))
        batch = stimulus.spikes.samples
        return Recording(
            spikes={
                p.name: Spikes(*(torch.zeros(0, dtype=t) for t in (torch.int64, torch.int64, torch.float32)), batch, 3)
                for p in circuit.populations
                if p.threshold is not None
            },
            traces={
                p.name: torch.full((batch, circuit.samples, p.size), stimulus.clock % 256, dtype=torch.uint8)
                for p in circuit.populations
            },
            cost=Cost(batch * 1e-4, 2e-5, "measured"),
            health=Health(3, 1, ("a note",)),
            lost=torch.arange(batch) == 1,
        )


@contextmanager
def serving(backend: Backend, **settings: Any) -> Iterator[Server]:
    """Serve a device in a thread; the end of the block stops it, and fails if it does not end."""
    server = Server(backend, ServerSettings(**{"bind": FREE_PORT, **settings}))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def connected(server: Server | str, **settings: Any) -> Iterator[RemoteBackend]:
    """Open a client of a server, or of an address."""
    address = server if isinstance(server, str) else server.address
    with RemoteBackend(address, **{**PATIENT, **settings}) as backend:
        yield backend


class Proxy:
    """A bad network between clients and a server: `act` says what becomes of each message.

    Args:
        server: Address of the server.
        act: Gets the direction (`up`, `down`), the number of the message and its frames; returns the copies to
            deliver now, each after a number of further messages (0: at once).
    """

    def __init__(self, server: str, act: Callable[[str, int, list[bytes]], list[int]]) -> None:
        self._act = act
        self._context = zmq.Context()
        self._stop = threading.Event()
        self._front = self._context.socket(zmq.ROUTER)
        port = self._front.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._server = server
        self._backs: dict[bytes, zmq.Socket[bytes]] = {}
        self._held: list[tuple[int, str, bytes, list[bytes]]] = []
        self._count = 0
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _pass_on(self) -> None:
        while not self._stop.is_set():
            for socket in zmq.select([self._front, *self._backs.values()], [], [], 0.02)[0]:
                if socket is self._front:
                    route, *frames = socket.recv_multipart()
                    self._take("up", route, frames)
                else:
                    route = next(route for route, back in self._backs.items() if back is socket)
                    self._take("down", route, socket.recv_multipart())

    def _take(self, way: str, route: bytes, frames: list[bytes]) -> None:
        self._count += 1
        for delay in self._act(way, self._count, frames):
            self._held.append((self._count + delay, way, route, frames))
        due = [held for held in self._held if held[0] <= self._count]
        self._held = [held for held in self._held if held[0] > self._count]
        for _, direction, peer, message in sorted(due, key=lambda held: -held[0]):
            self._deliver(direction, peer, message)

    def _deliver(self, way: str, route: bytes, frames: list[bytes]) -> None:
        if way == "down":
            self._front.send_multipart([route, *frames])
            return
        if route not in self._backs:
            back = self._context.socket(zmq.DEALER)
            back.connect(self._server)
            self._backs[route] = back
        self._backs[route].send_multipart(frames)
