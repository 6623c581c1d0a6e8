"""A chip of a pool for one client: messages of a claim, and the client's side (docs/pool.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hxtrain.backends.recording import QueueTimeoutError

from .heart import Heart, label
from .link import Link, LinkSettings, tell
from .protocol import Ask, ConnectionLostError, Empty
from .wire import Exact

log = logging.getLogger(__name__)
PERIOD = 30.0
"""Time between two reports of an unchanged place in the queue (s)."""
LONGEST_PAUSE = 5.0
"""Longest pause between two questions for the place (s)."""


@dataclass(frozen=True)
class Wish:
    """Properties of a chip that a client can use.

    Attributes:
        identity: Entries that the identity of the chip must have, such as `preset`.
        circuits: Smallest number of neuron circuits.
        recorded: Content hash of the chip of an earlier session; chips with it count alone if the pool has any.
            A calibrated chip shows another hash when a circuit asks for other targets, hence no must.
    """

    identity: Mapping[str, str]
    circuits: int = 0
    recorded: str = ""

    def __str__(self) -> str:
        """Return the wish for people."""
        parts = [f"{name} {value}" for name, value in self.identity.items()]
        parts += [f"at least {self.circuits} circuits"] if self.circuits else []
        return ", ".join(parts) or "any chip"


@dataclass(frozen=True)
class Claim:
    """Request for a chip of a pool, or for the place in its queue.

    Attributes:
        client: Name of this client, see `Ask`.
        label: Label for people, see `Ask`.
        wish: Properties of the chip.
        previous: Address of the server that the client had last; empty without one. It gets this one if it is free.
        is_withdrawn: Whether the client does not want a chip any more: its place or lease ends.
    """

    client: str
    label: Exact
    wish: Wish
    previous: str = ""
    is_withdrawn: bool = False

    def __post_init__(self) -> None:
        Ask(self.client, self.label)


@dataclass(frozen=True)
class Grant:
    """Answer to `Claim`.

    Attributes:
        lease: Token of the lease; None in the queue.
        address: Address of the server; empty in the queue.
        position: 0 with a lease, 1 for the first in the queue, ...
        queued: Number of clients in the queue.
        estimate: Estimate of the wait (s); None if there is none.
        reason: Why there is no estimate; empty with one.
        again: Time after which to ask again (s).
        heartbeat: Time in which a client must give a sign of life; after two of them its lease is over (s).
    """

    lease: str | None
    address: str
    position: int
    queued: int
    estimate: float | None
    reason: str
    again: float  # language: a key of messages
    heartbeat: float


class Reservation:
    """A client's chip in a pool: waits in the queue, gives signs of life, and tells when the chip is lost.

    Args:
        settings: Settings of the connection to the broker.
        wish: Properties of the chip.
        patience: Longest wait in the queue (s).
        client: Name of the client.

    Raises:
        ValueError: Keys are missing or broken.
    """

    def __init__(self, settings: LinkSettings, wish: Wish, patience: float, client: str) -> None:
        self._settings = settings
        self._wish = wish
        self._patience = patience
        self._client = client
        self._link = Link(settings)
        self._lease = ""
        self._address = ""
        self._heart: Heart | None = None

    @property
    def is_held(self) -> bool:
        """Whether the client has a chip."""
        return bool(self._lease) and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether the chip was taken away: its server is gone, or the signs of life did not arrive."""
        return bool(self._lease) and self._heart is not None and self._heart.lost == self._lease

    def take(self, identity: Mapping[str, str] | None = None) -> str:
        """Wait for a chip and return the address of its server.

        Args:
            identity: Identity that the chip must have; None: that of the wish.

        Raises:
            DeviceError: The broker cannot be reached.
            QueueTimeoutError: Others have the chips for too long.
            ValueError: The pool has no such chip.
        """
        wish = self._wish if identity is None else Wish(identity, self._wish.circuits)
        claim = Claim(self._client, Exact(label()), wish, self._address)
        try:
            grant = self._wait(claim)
        except (ConnectionLostError, ValueError):
            raise
        except BaseException:
            withdrawal = replace(claim, is_withdrawn=True)
            tell(self._settings, "claim", withdrawal, "", "the pool does not know that this client is gone")
            raise
        assert grant.lease is not None
        self._lease = grant.lease
        self._address = grant.address
        if self._heart is None:
            self._heart = Heart(self._settings, 2 * grant.heartbeat, self._link)
        self._heart.lease = self._lease
        self._link.close()
        return self._address

    def _wait(self, claim: Claim) -> Grant:
        """Ask for a chip until there is one.

        Raises:
            QueueTimeoutError: Others have the chips for too long.
        """
        start = time.monotonic()
        position = -1
        reported = start
        while True:
            grant = self._link.request("claim", claim).read(Grant)
            if grant.lease is not None:
                break
            moment = time.monotonic()
            if position < 0 or moment - reported > PERIOD:
                self._report(grant, claim.wish)
                position = grant.position
                reported = moment
            if moment - start > self._patience:
                raise QueueTimeoutError(
                    f"{self._settings.peer}: no chip for {self._patience:g} s (place {grant.position} of "
                    f"{grant.queued}; {claim.wish}){f': {grant.reason}' if grant.reason else ''}. See who has them: "
                    f"{self._settings.question}; wait longer with a larger `queue_patience`"
                )
            time.sleep(max(0.01, min(grant.again, LONGEST_PAUSE)))
        if position > 0:
            log.warning("%s: leased the chip at %s after %.0f s", self._settings.peer, grant.address, moment - start)
        return grant

    def end(self) -> None:
        """Give the chip back, if the broker can be reached; may be called twice."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
        if self._lease:
            otherwise = "the chip was not given back to the pool, its lease ends by itself"
            tell(self._settings, "release", Empty(), self._lease, otherwise)
        self._lease = ""
        self._link.close()

    def _report(self, grant: Grant, wish: Wish) -> None:
        wait = f"unknown: {grant.reason}" if grant.estimate is None else f"about {grant.estimate:.0f} s"
        text = "%s: place %d of %d in the queue for a chip (%s), waiting time %s"
        log.warning(text, self._settings.peer, grant.position, grant.queued, wish, wait)
