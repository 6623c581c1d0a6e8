"""Processes of a benchmark that serve, until they are told to end or killed."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from hxtrain.backends import Backend, BackendWrapper, DeviceError, Recording, Stimulus, create_backend
from hxtrain.backends.pool import Broker
from hxtrain.backends.remote import Server, ServerSettings
from hxtrain.runs.process import keep_freed_memory

START = 180.0
"""Time limit of a start, and of an end in order (s)."""


class Service:
    """A process that serves at an address.

    Args:
        serve: Function of the process: gets a connection and `arguments`, and ends by `serve_until_closed`.
        arguments: Arguments of this function.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, sender = context.Pipe()
        self._process = context.Process(target=serve, args=(sender, *arguments), daemon=True)
        self._process.start()
        sender.close()

    def address(self) -> str:
        """Wait until the process serves, and return its address.

        Raises:
            DeviceError: The process does not start.
        """
        end = time.monotonic() + START
        while not self._connection.poll(0.1):
            if not self._process.is_alive() or time.monotonic() > end:
                raise DeviceError(
                    f"a server did not start within {START:g} s; its reason is above, or the machine busy"
                )
        address: str = self._connection.recv()
        return address

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def end(self) -> None:
        """End the process in order."""
        self._connection.close()
        self._process.join(START)
        self._process.kill()


def serve_until_closed(connection: Connection, server: Server | Broker) -> None:
    """Send the address, and serve until the other end of the connection closes."""
    connection.send(server.address)

    def wait() -> None:
        connection.poll(None)
        server.stop()

    threading.Thread(target=wait, daemon=True).start()
    server.serve()


class SlowChip(BackendWrapper):
    """A device whose runs take longer, without work for this machine.

    Args:
        backend: The wrapped device.
        delay: Time that each run takes longer (s).
    """

    def __init__(self, backend: Backend, delay: float) -> None:
        super().__init__(backend)
        self._delay = delay

    def map_recording(self, recording: Recording, stimulus: Stimulus) -> Recording:
        """Return the recording later."""
        time.sleep(self._delay)
        return recording


def serve_chip(connection: Connection, bind: str, chip: str, preset: str, threads: int, delay: float = 0.0) -> None:
    """Serve an emulated chip; the function of a process.

    Args:
        connection: Connection to the process that started this one.
        bind: Address.
        chip: Name of the chip.
        preset: Preset of the chip.
        threads: Number of torch threads.
        delay: Time that each run of the chip takes longer (s).
    """
    keep_freed_memory()
    backend = create_backend("emulator", chip=chip, preset=preset)
    if delay > 0:
        backend = SlowChip(backend, delay)
    serve_until_closed(connection, Server(backend, ServerSettings(bind=bind, threads=threads)))
