"""Who has the chip: one lease at a time, a first-come-first-served queue for the others.

Pure bookkeeping: the caller says what time it is and whether the device is idle.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from hxtrain.backends.contract import Circuit

from .protocol import Ask, Client, Place, Refusal

LONGEST_POLL = 0.1
"""Longest time after which a waiting client asks again (s)."""


@dataclass
class Member:
    """A client that waits or holds the lease; `user` is its public key, empty without keys. Times in s."""

    client: str
    user: str
    label: str
    since: float
    seen: float


@dataclass
class Lease:
    """A held lease; `circuit` is what its holder has configured, `jobs` what it has had done."""

    member: Member
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    circuit: Circuit | None = None
    jobs: int = 0


class Desk:
    """Gives out leases.

    Args:
        heartbeat_timeout: silence after which a client has gone (s).
        lease_time: how long a lease lasts while others wait (s).
        places: longest queue.

    Attributes:
        lease: the held one. queue: those who wait, in order.
        granted, expired: number of leases given, and of those that ended by silence.
    """

    def __init__(self, heartbeat_timeout: float, lease_time: float, places: int = 64) -> None:
        self.heartbeat_timeout, self.lease_time, self.places = heartbeat_timeout, lease_time, places
        self.lease: Lease | None = None
        self.queue: list[Member] = []
        self.granted, self.expired = 0, 0

    def ask(self, ask: Ask, user: str, now: float, idle: bool) -> Place:
        """Return a client's place, after giving it the lease or one in the queue.

        Raises:
            Refusal: busy, if the queue is full; not authorised, if another user has this client's name.
        """
        member = self._find(ask.client)
        if member is None:
            if len(self.queue) >= self.places:
                raise Refusal("busy", f"{self.places} clients wait already; try again later", 5.0)
            member = Member(ask.client, user, ask.label, now, now)
            self.queue.append(member)
        if member.user != user:
            raise Refusal("not_authorised", f"client {ask.client} belongs to another key")
        member.seen = now
        self.advance(now, idle)
        return self._place(member, now)

    def holder(self, token: str, user: str, now: float) -> Lease:
        """Return the lease with a token, whose holder is hereby heard of.

        Raises:
            Refusal: lease lost, or not authorised.
        """
        lease = self.lease
        if lease is None or not secrets.compare_digest(lease.token.encode(), token.encode()):
            raise Refusal("lease_lost", "this lease is over or was given by an earlier server; ask for a new one")
        if lease.member.user != user:
            raise Refusal("not_authorised", "this lease belongs to another key")
        lease.member.seen = now
        return lease

    def release(self, token: str, user: str, now: float, idle: bool) -> None:
        """End a lease; one that is over already stays so."""
        try:
            self.holder(token, user, now)
        except Refusal as refusal:
            if refusal.code != "lease_lost":
                raise
            return
        self.lease = None
        self.advance(now, idle)

    def advance(self, now: float, idle: bool) -> None:
        """Forget who is silent, end a lease whose time is over, give it to the next when the device is idle."""
        self.queue = [member for member in self.queue if not self._silent(member, now)]
        lease = self.lease
        if lease is not None and self._silent(lease.member, now):
            self.lease, self.expired = None, self.expired + 1
        elif lease is not None and self.queue and idle and self._had_its_turn(lease, now):
            self.lease = None
        if self.lease is None and self.queue and idle:
            member = self.queue.pop(0)
            member.since = now
            self.lease, self.granted = Lease(member), self.granted + 1

    def clients(self, now: float) -> tuple[Client | None, tuple[Client, ...]]:
        """Return holder and queue for people."""
        holder = None if self.lease is None else _shown(self.lease.member, now)
        return holder, tuple(_shown(member, now) for member in self.queue)

    def _had_its_turn(self, lease: Lease, now: float) -> bool:
        """A holder has had at least one run, unless it dawdles: else a short lease time would stop everyone."""
        held = now - lease.member.since
        return held >= self.lease_time and (lease.jobs > 0 or held >= self.lease_time + self.heartbeat_timeout)

    def _silent(self, member: Member, now: float) -> bool:
        return now - member.seen > self.heartbeat_timeout

    def _find(self, client: str) -> Member | None:
        members = self.queue if self.lease is None else [self.lease.member, *self.queue]
        return next((member for member in members if member.client == client), None)

    def _place(self, member: Member, now: float) -> Place:
        again = min(LONGEST_POLL, self.heartbeat_timeout / 4)
        if self.lease is not None and self.lease.member is member:
            return Place(self.lease.token, 0, 0.0, again)
        position = 1 + self.queue.index(member)
        held = 0.0 if self.lease is None else now - self.lease.member.since
        estimate = (position - 1) * self.lease_time + max(0.0, self.lease_time - held)
        return Place(None, position, estimate, again)


def _shown(member: Member, now: float) -> Client:
    return Client(member.label, now - member.since)
