"""A device as a server, and the status of a server."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from hxtrain.backends.remote import Report, Server, ServerSettings
from hxtrain.execution.config import SOFTWARE, BackendConfig, ChipConfig
from hxtrain.runs.process import keep_freed_memory


@dataclass
class ServeConfig(ServerSettings):
    """Settings of `hxtrain serve`: settings of the server, and the device that it serves."""

    backend: BackendConfig = field(default_factory=BackendConfig)
    chip: ChipConfig = field(default_factory=ChipConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend.name == SOFTWARE:
            raise ValueError(f"backend={SOFTWARE} is no device; there is nothing to serve")
        default = BackendConfig()
        for name in ("retries", "trial_time", "forced_reset"):
            if getattr(self.backend, name) != getattr(default, name):
                raise ValueError(f"backend.{name} is the client's choice; give it there, with backend=remote")


def serve(config: ServeConfig, say: Callable[[str], None]) -> None:
    """Serve a device until SIGINT or SIGTERM; a running batch is finished first.

    Raises:
        DeviceError: The device cannot be opened.
        ValueError: Keys are missing, or the address cannot be bound.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError(
            "a chip is served on Linux or macOS: this system has no Unix sockets. Its clients run here, too "
            "(backend=remote)"
        )
    keep_freed_memory()
    backend = config.backend.create(config.chip)
    assert backend is not None  # the config refuses software
    server = Server(backend, config)
    chip = backend.identity
    say(f"serving {chip['backend']} {chip['chip']} ({chip['chip_hash']}) at {server.address}")
    with on_signals(server.stop):
        server.serve()
    say("closed")


@contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function at SIGINT and SIGTERM within the block, in place of what Python does."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def report_rows(report: Report) -> list[tuple[str, str]]:
    """Return a server's status as a table of two columns."""
    health = report.health
    holder = report.holder
    rows = [
        ("device", " ".join(f"{key}={value}" for key, value in report.identity.items())),
        ("server", f"{report.software}, up for {duration(report.uptime)}"),
        ("state", health.state + (f" for {health.job_seconds:.1f} s" if health.state != "idle" else "")),
        ("lease", "free" if holder is None else f"{holder.label}, for {duration(holder.seconds)}"),
    ]
    rows += [
        (f"queue {place}", f"{client.label}, for {duration(client.seconds)}")
        for place, client in enumerate(report.queue, 1)
    ]
    rows += [
        ("done", f"{report.runs} runs, {report.trials} trials, {report.trials_per_second:.1f} trials/s lately"),
        ("repeated requests", str(report.duplicates)),
        ("losses", f"{health.dropped_spikes} spikes dropped, {health.lost_trials} trials lost"),
        ("errors", ", ".join(f"{code} {count}" for code, count in sorted(report.errors.items())) or "none"),
    ]
    return [*rows, ("last error", health.last_error)] if health.last_error else rows


def duration(seconds: float) -> str:
    """Return a time span for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h"
