"""Access to the chip: one lease at a time, and a first-come-first-served queue for other clients.

This is pure bookkeeping: the caller passes the time and whether the device is idle.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

from hxtrain.backends.circuit import Circuit

from .protocol import Ask, Client, Place, Refusal

LONGEST_POLL = 0.1
"""Longest time after which a waiting client asks again (s)."""
FULL_POLL = 2.0
"""Time after which a client without a place asks again (s)."""
PLACES_OF_ONE = 4
"""Largest number of places, including the lease, of one key, or of one connection without keys."""


class Origin(NamedTuple):
    """Origin of a request: public key of the user (empty without keys), connection, address of its machine."""

    user: str
    connection: str = ""
    address: str = ""

    @property
    def owner(self) -> str:
        """Return the key or connection to which the places are attributed."""
        return self.user or self.connection


@dataclass
class Member:
    """A client that waits or holds the lease, its last origin, and the times of its place and last contact (s)."""

    client: str
    origin: Origin
    label: str
    since: float
    last_contact: float


@dataclass
class Lease:
    """A lease, with the configured circuit, the number of runs, and the end of the last job (s)."""

    member: Member
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    circuit: Circuit | None = None
    jobs: int = 0
    worked: float = 0.0


class Desk:
    """Gives out leases.

    Args:
        heartbeat_timeout: Silence after which a client counts as gone (s).
        lease_time: Duration of a lease while others wait (s).
        places: Length limit of the queue; without keys, one machine takes half of it at most.

    Attributes:
        lease: Current lease; None without one.
        queue: Waiting clients, in order.
        granted: Number of leases so far.
        expired: Number of leases that ended by silence.
    """

    def __init__(self, heartbeat_timeout: float, lease_time: float, places: int = 64) -> None:
        self.heartbeat_timeout = heartbeat_timeout
        self.lease_time = lease_time
        self.places = places
        self.lease: Lease | None = None
        self.queue: list[Member] = []
        self.granted, self.expired = 0, 0

    def ask(self, ask: Ask, origin: Origin, moment: float, idle: bool) -> Place:
        """Return a client's place, after giving it the lease or one in the queue.

        While the queue is full, or the user has the largest number of places, the client gets the last place, which is
        not kept.

        Raises:
            Refusal: Not authorised, if another user has this client's name.
        """
        member = self._find(ask.client)
        if member is None:
            if self._is_full(origin):
                position = len(self.queue) + 1
                return Place(None, position, position * self._longest_turn, FULL_POLL)
            member = Member(ask.client, origin, ask.label, moment, moment)
            self.queue.append(member)
        if member.origin.user != origin.user:
            raise Refusal("not_authorised", f"client {ask.client} belongs to another key")
        member.last_contact = moment
        member.origin = origin
        self.advance(moment, idle)
        if not any(candidate is member for candidate in self._members()):  # its lease has just passed to another client
            member.since = moment
            self.queue.append(member)
        return self._place(member, moment)

    def holder(self, token: str, user: str, moment: float) -> Lease:
        """Return the lease with a token, and record the contact with its holder.

        Raises:
            Refusal: Lease lost, or not authorised.
        """
        lease = self.lease
        if lease is None or not secrets.compare_digest(lease.token.encode(), token.encode()):
            raise Refusal("lease_lost", "this lease is over or was given by an earlier server; ask for a new one")
        if lease.member.origin.user != user:
            raise Refusal("not_authorised", "this lease belongs to another key")
        lease.member.last_contact = moment
        return lease

    def release(self, token: str, user: str, moment: float, idle: bool) -> None:
        """End a lease; a lease that is over already is ignored."""
        try:
            self.holder(token, user, moment)
        except Refusal as refusal:
            if refusal.code != "lease_lost":
                raise
            return
        self.lease = None
        self.advance(moment, idle)

    def advance(self, moment: float, idle: bool) -> None:
        """Remove silent clients, end a lease whose time is over, and give the next one out when the device is idle."""
        self.queue = [member for member in self.queue if not self._silent(member, moment)]
        lease = self.lease
        if lease is not None and self._silent(lease.member, moment):
            self.lease = None
            self.expired += 1
        elif lease is not None and self.queue and idle and self._had_its_turn(lease, moment):
            self.lease = None
        if self.lease is None and self.queue and idle:
            member = self.queue.pop(0)
            member.since = moment
            self.lease = Lease(member, worked=moment)
            self.granted += 1

    def clients(self, moment: float) -> tuple[Client | None, tuple[Client, ...]]:
        """Return holder and queue in the form of a report."""
        holder = None if self.lease is None else _describe(self.lease.member, moment)
        return holder, tuple(_describe(member, moment) for member in self.queue)

    def _had_its_turn(self, lease: Lease, moment: float) -> bool:
        """Return whether the holder's time is over; a short lease time allows one run, unless the holder is idle."""
        held = moment - lease.member.since
        if lease.jobs == 0:
            return moment - lease.worked >= self.heartbeat_timeout or held >= self.lease_time + self.heartbeat_timeout
        return held >= self.lease_time

    @property
    def _longest_turn(self) -> float:
        """Return the time after which a holder's turn is over, with or without runs (s)."""
        return max(self.lease_time, self.heartbeat_timeout)

    def _is_full(self, origin: Origin) -> bool:
        """Return whether another client of this origin gets no place."""
        members = self._members()
        same_owner = sum(member.origin.owner == origin.owner for member in members)
        if len(self.queue) >= self.places or (origin.owner and same_owner >= PLACES_OF_ONE):
            return True
        same_address = sum(member.origin.address == origin.address for member in members)
        return not origin.user and bool(origin.address) and same_address > self.places // 2

    def _silent(self, member: Member, moment: float) -> bool:
        return moment - member.last_contact > self.heartbeat_timeout

    def _find(self, client: str) -> Member | None:
        return next((member for member in self._members() if member.client == client), None)

    def _members(self) -> list[Member]:
        return self.queue if self.lease is None else [self.lease.member, *self.queue]

    def _place(self, member: Member, moment: float) -> Place:
        pause = min(LONGEST_POLL, self.heartbeat_timeout / 4)
        if self.lease is not None and self.lease.member is member:
            return Place(self.lease.token, 0, 0.0, pause)
        position = 1 + self.queue.index(member)
        held = 0.0 if self.lease is None else moment - self.lease.member.since
        estimate = (position - 1) * self._longest_turn + max(0.0, self._longest_turn - held)
        return Place(None, position, estimate, pause)


def _describe(member: Member, moment: float) -> Client:
    return Client(member.label, moment - member.since)
