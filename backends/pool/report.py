"""What a broker reports of its pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hxtrain.backends.addresses import pool_address
from hxtrain.backends.remote.link import LinkSettings
from hxtrain.backends.remote.queries import ask

State = Literal["free", "leased", "elsewhere", "away"]
"""A chip is `elsewhere` if a client that did not come through the pool has it, and `away` if its server is silent."""


@dataclass(frozen=True)
class Berth:
    """A chip of a pool.

    Attributes:
        address: Address of its server.
        state: State of the chip.
        identity: Identity of the chip; empty if its server has not answered yet.
        circuits: Number of neuron circuits.
        holder: Label of the client that has the chip; empty without one.
        seconds: Time for which the state has lasted (s).
    """

    address: str
    state: State
    identity: Mapping[str, str]
    circuits: int
    holder: str
    seconds: float


@dataclass(frozen=True)
class Waiter:
    """A client in the queue.

    Attributes:
        label: Label for people.
        wish: Wish for people.
        seconds: Time of waiting so far (s).
        estimate: Estimate of the wait to come (s); None if there is none.
        reason: Why there is no estimate; empty with one.
    """

    label: str
    wish: str
    seconds: float
    estimate: float | None
    reason: str


@dataclass(frozen=True)
class PoolReport:
    """Answer to `status`.

    Attributes:
        software: Name and version of the broker.
        uptime: Time since the start (s).
        heartbeat: Time between signs of life (s).
        chips: All chips.
        queue: Waiting clients, in their order.
        granted: Number of leases so far, over restarts.
        expired: Number of leases that ended by silence of the client.
        lost: Number of leases that ended since the server was silent or had another chip.
        busy: Share of the time in which the chips were leased, while someone waited who could use them; None if nobody
            has waited yet.
    """

    software: str
    uptime: float
    heartbeat: float
    chips: tuple[Berth, ...]
    queue: tuple[Waiter, ...]
    granted: int
    expired: int
    lost: int
    busy: float | None


def ask_pool(settings: LinkSettings) -> PoolReport:
    """Return the report of a pool; `tcp://HOST:PORT` and `pool://HOST:PORT` are the same address here.

    Raises:
        DeviceError: The broker cannot be reached, or a single chip's server answers.
    """
    return ask(replace(settings, address=pool_address(settings.address)), "status", PoolReport)
