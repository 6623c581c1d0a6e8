"""Common parts of the tests of pools: a broker in a thread, and chips of given names behind servers in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from remote_bench import FREE_PORT, PATIENT, CountingBackend, serving

from hxtrain.backends.addresses import pool_address
from hxtrain.backends.pool import Broker, PoolReport, PoolSettings, ask_pool
from hxtrain.backends.remote import LinkSettings, RemoteBackend

HEARTBEAT = 0.4
"""Time between signs of life in these tests (s)."""


class NamedBackend(CountingBackend):
    """A counting device with a name and a hash."""

    def __init__(self, chip: str, preset: str = "calibrated", during: Callable[[int], None] = lambda run: None) -> None:
        super().__init__(during)
        self._identity = {"backend": "reference", "chip": chip, "chip_hash": f"hash of {chip}", "preset": preset}

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity


@contextmanager
def brokering(servers: list[str], folder: Path, **settings: Any) -> Iterator[Broker]:
    """Run a broker in a thread; the end of the block stops it, and fails if it does not end."""
    values = {"bind": FREE_PORT, "heartbeat": HEARTBEAT, "state": str(folder / "pool.json"), **settings}
    broker = Broker(PoolSettings(servers=servers, **values))
    thread = threading.Thread(target=broker.serve)
    thread.start()
    try:
        yield broker
    finally:
        broker.stop()
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def pooling(folder: Path, *chips: str, **settings: Any) -> Iterator[tuple[Broker, dict[str, str]]]:
    """Serve chips behind a broker; yield the broker and the addresses of the servers by the chips' names."""
    keys = {"keys": settings.get("keys")}
    with ExitStack() as stack:
        places = {chip: stack.enter_context(serving(NamedBackend(chip), **keys)).address for chip in chips}
        broker = stack.enter_context(brokering(list(places.values()), folder, **settings))
        await_states(broker, {"free": len(chips)})
        yield broker, places


@contextmanager
def leasing(broker: Broker, **settings: Any) -> Iterator[RemoteBackend]:
    """Open a client of a pool."""
    with RemoteBackend(pool_address(broker.address), **{**PATIENT, **settings}) as backend:
        yield backend


def report(broker: Broker) -> PoolReport:
    """Return the report of a pool."""
    return ask_pool(LinkSettings(broker.address, broker.settings.keys))


def await_states(broker: Broker, states: Mapping[str, int], limit: float = 30.0) -> PoolReport:
    """Wait until so many chips are in each of these states."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        current = report(broker)
        counts = [berth.state for berth in current.chips]
        if all(counts.count(state) == count for state, count in states.items()):  # type: ignore[arg-type]
            return current
        time.sleep(0.02)
    raise AssertionError(f"the pool does not come to {states}: {report(broker)}")
