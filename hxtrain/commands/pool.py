"""The broker of a pool of chips, and the report of a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import List  # noqa: UP035 - OmegaConf resolves it on every Python

from omegaconf import MISSING

from hxtrain.backends.addresses import pool_address
from hxtrain.backends.pool import Berth, Broker, PoolReport, PoolSettings

from .serve import duration, on_signals


@dataclass
class PoolConfig(PoolSettings):
    """Settings of `hxtrain pool`."""

    servers: List[str] = MISSING  # noqa: UP006

    def __post_init__(self) -> None:
        if self.servers != MISSING:  # a schema, which is yet to be filled
            super().__post_init__()


def pool(config: PoolConfig, say: Callable[[str], None]) -> None:
    """Lease the chips of servers until SIGINT or SIGTERM; clients with a chip go on without a broker.

    Raises:
        ValueError: Keys are missing, the address cannot be bound, or the state file is none or in use.
        OSError: The state cannot be read or written.
    """
    broker = Broker(config)
    address = pool_address(broker.address)
    say(f"a pool of {len(config.servers)} chip servers at {address}; leases are kept in {broker.file}")
    if broker.has_state:
        say(f"{broker.n_leases} leases of the previous broker go on")
    with on_signals(broker.stop):
        broker.serve()
    say("closed")


CHIP_COLUMNS = ("server", "chip", "preset", "hash", "circuits", "state", "client", "for")


def chip_rows(report: PoolReport) -> list[tuple[str, ...]]:
    """Return the chips of a pool as rows of a table."""
    return [_chip_row(chip) for chip in report.chips]


def _chip_row(chip: Berth) -> tuple[str, ...]:
    names = [chip.identity.get(name, "-") for name in ("chip", "preset", "chip_hash")]
    return (chip.address, *names, str(chip.circuits), chip.state, chip.holder or "-", duration(chip.seconds))


QUEUE_COLUMNS = ("place", "client", "wants", "waits for", "about to wait")


def queue_rows(report: PoolReport) -> list[tuple[str, ...]]:
    """Return the queue of a pool as rows of a table."""
    return [
        (
            str(place),
            waiter.label,
            waiter.wish,
            duration(waiter.seconds),
            waiter.reason if waiter.estimate is None else duration(waiter.estimate),
        )
        for place, waiter in enumerate(report.queue, 1)
    ]


def summary(report: PoolReport) -> str:
    """Return a line on the leases of a pool so far."""
    busy = "" if report.busy is None else f"; while someone waited, {report.busy:.1%} of the fitting chips were in use"
    return (
        f"{report.software}, up for {duration(report.uptime)}: {report.granted} leases, {report.expired} of clients "
        f"that vanished, {report.lost} of servers that did{busy}"
    )
