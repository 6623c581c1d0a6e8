"""Who has which chip of a pool, and who is next. This is pure bookkeeping: the caller passes the time.

Users take turns. Whoever has the fewest chips is next, and among these, who got one the longest time ago; within
one user's claims the first come is first served. A claim that no free chip fits lets the others pass.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from hxtrain.backends.remote.claims import Claim, Grant, Wish
from hxtrain.backends.remote.leases import Origin
from hxtrain.backends.remote.protocol import Refusal

from .entries import Chip, Lease, Member
from .report import Berth, Waiter

SHORTEST_POLL = 0.1
"""Time after which the first of the queue asks again (s); the others ask less often."""
PLACES = 512
"""Length limit of the queue."""
PLACES_OF_ONE = 256
"""Largest number of places of one user."""
SHOWN = 16
"""Largest number of chips in a text."""
KEPT = 32
"""Number of leases over which the duration is averaged."""
WITHDRAWN = "the claim is withdrawn"
"""Why a client that gave up has no chip."""
SAME_SERVER = "the same server as"
"""Holder of a chip whose server has another address in the pool, which follows."""
USERS = 1024
"""Number of users whose last turn is kept."""


class Outlook(NamedTuple):
    """Estimate of a wait (s), or None and why there is none."""

    estimate: float | None
    reason: str = ""


class PoolDesk:
    """Gives out chips.

    Args:
        addresses: Addresses of the servers.
        heartbeat: Time between signs of life (s); two of them in silence end leases and places, and make a server away.
        moment: Current time (s).

    Attributes:
        chips: Chips by address.
        leases: Leases by address.
        queue: Waiting clients, in the order of their coming.
        changes: Number of changes that a restart must not lose.
    """

    def __init__(self, addresses: list[str], heartbeat: float, moment: float) -> None:
        self.heartbeat = heartbeat
        self.chips = {address: Chip(address, moment, since=moment) for address in addresses}
        self.leases: dict[str, Lease] = {}
        self.queue: list[Member] = []
        self.turns: dict[str, float] = {}
        self.instances: dict[str, str] = {}
        self.durations: deque[float] = deque(maxlen=KEPT)
        self.granted = 0
        self.expired = 0
        self.lost = 0
        self.changes = 0
        self.busy_time, self.queued_time = 0.0, 0.0
        self._accounted = moment

    # servers

    def answer(
        self,
        address: str,
        identity: Mapping[str, str],
        circuits: int,
        holder: str,
        moment: float,
        instance: str = "",
    ) -> None:
        """Record the answer of a server.

        A server that answers at two addresses counts at the first alone.

        Args:
            address: Address of the server.
            identity: Identity of its chip.
            circuits: Number of neuron circuits.
            holder: Label of who has the chip; empty if nobody has.
            moment: Current time (s).
            instance: Random name of the server; empty if it has none.
        """
        self._account(moment)
        self.instances[address] = instance
        twins = [name for name, chip in self.chips.items() if chip.is_here and self.instances.get(name) == instance]
        if instance and twins and list(self.chips).index(twins[0]) < list(self.chips).index(address):
            holder = f"{SAME_SERVER} {twins[0]}"
        chip = self.chips[address]
        lease = self.leases.get(address)
        if chip.identity != identity or chip.circuits != circuits:
            self.changes += 1
            if lease is not None and chip.identity:
                self._lose(lease, moment)
            chip.identity = dict(identity)
            chip.circuits = circuits
        if not chip.is_here:
            chip.since = moment
        chip.is_here = True
        chip.answered = moment
        lease = self.leases.get(address)
        is_ours = (lease is not None and _names(holder, lease.member.mark)) or _names(holder, chip.returned)
        stranger = "" if lease is not None or is_ours else holder
        if bool(stranger) != bool(chip.stranger):
            chip.since = moment
        chip.stranger = stranger
        if not is_ours:
            chip.returned = ""

    # clients

    def claim(self, claim: Claim, origin: Origin, label: str, moment: float) -> Grant:
        """Return a client's chip, or its place in the queue.

        Args:
            claim: Claim of the client.
            origin: Origin of the claim.
            label: Label of the client for people.
            moment: Current time (s).

        Raises:
            Refusal: Value, if the pool has no such chip; not authorised, if another user has this client's name.
        """
        self._account(moment)
        member = self._find(claim.client)
        if member is not None and member.user != origin.user:
            raise Refusal("not_authorised", f"client {claim.client} belongs to another key")
        if member is not None:
            member.last_contact = moment
        lease = self._lease_of(claim.client)
        if claim.is_withdrawn:
            self._forget(claim.client, moment)
            return Grant(None, "", 0, len(self.queue), None, WITHDRAWN, self.heartbeat, self.heartbeat)
        if lease is not None and not self.chips[lease.address].fits(claim.wish):
            self._end(lease, moment)  # given for an earlier wish
            self.queue.append(lease.member)
            lease = None
        if lease is None:
            self._require(claim, moment)
            member = self._enqueue(member, claim, origin, label, moment)
            if member is None:
                count = len(self.queue)
                reason = f"the queue has no place for another claim of this user; {count} clients wait"
                return Grant(None, "", count + 1, count, None, reason, self.heartbeat, self.heartbeat)
            self._restore(member, claim.previous, moment)
            self.advance(moment)
            lease = self._lease_of(claim.client)
        if lease is not None:
            lease.is_taken = True
            return Grant(lease.token, lease.address, 0, len(self.queue), 0.0, "", self.heartbeat, self.heartbeat)
        return self._place(claim.client, moment)

    def holder(self, token: str, user: str, moment: float) -> Lease:
        """Return the lease with a token, and record the contact with its holder.

        Raises:
            Refusal: Lease lost, or not authorised.
        """
        encoded = token.encode()
        for lease in self.leases.values():
            if secrets.compare_digest(lease.token.encode(), encoded):
                if lease.member.user != user:
                    raise Refusal("not_authorised", "this lease belongs to another key")
                lease.member.last_contact = moment
                return lease
        raise Refusal("lease_lost", "this lease is over, or the pool has forgotten it; claim a chip again")

    def release(self, token: str, user: str, moment: float) -> None:
        """End a lease; one that is over already is ignored, and so is its client's place in the queue.

        Raises:
            Refusal: Not authorised.
        """
        self._account(moment)
        try:
            lease = self.holder(token, user, moment)
        except Refusal as refusal:
            if refusal.code != "lease_lost":
                raise
            return
        self._end(lease, moment)
        self.durations.append(moment - lease.begin)
        self.chips[lease.address].returned = lease.member.mark
        self.advance(moment)

    def advance(self, moment: float) -> None:
        """Remove silent clients and servers, and give free chips out."""
        self._account(moment)
        silence = 2 * self.heartbeat
        n_waiting = len(self.queue)
        self.queue = [member for member in self.queue if moment - member.last_contact <= silence]
        self.changes += len(self.queue) != n_waiting
        for lease in list(self.leases.values()):
            if moment - lease.member.last_contact > silence:
                self._end(lease, moment)
                self.expired += 1
        for chip in self.chips.values():
            if moment - chip.answered > silence:
                self._miss(chip, moment)
        while (pair := self._next()) is not None:
            self._grant(*pair, moment)

    def order(self) -> list[Member]:
        """Return the queue in the order of turns."""
        waiting: dict[str, deque[Member]] = {}
        for member in sorted(self.queue, key=lambda member: member.since):
            waiting.setdefault(member.owner, deque()).append(member)
        chips = dict.fromkeys(waiting, 0)
        for lease in self.leases.values():
            if lease.member.owner in chips:
                chips[lease.member.owner] += 1
        ranks = {
            owner: (chips[owner], self.turns.get(owner, -math.inf), line[0].since) for owner, line in waiting.items()
        }
        members = list[Member]()
        while waiting:
            owner = min(waiting, key=lambda name: ranks[name])
            members.append(waiting[owner].popleft())
            ranks[owner] = (ranks[owner][0] + 1, math.inf, len(members))  # after those who had no turn yet
            if not waiting[owner]:
                del waiting[owner]
        return members

    def outlook(self, line: Sequence[Member], place: int, moment: float) -> Outlook:
        """Return what can be said of the wait of a client.

        A lease is expected to last as long as those among the last ones that have lasted longer than it has by now. All
        leases behind it are expected to be of mean length.

        Args:
            line: Queue in the order of turns.
            place: Index of the client in it.
            moment: Current time (s).
        """
        wish = line[place].wish
        candidates = self._candidates(wish)
        fitting = [chip for chip in candidates if chip.is_here]
        if not fitting:
            return Outlook(None, self._absence(candidates, moment))
        rivals = sum(any(chip.fits(waiting.wish) for chip in fitting) for waiting in line[:place])
        rest = sorted((self._remainder(chip, moment), chip.address) for chip in fitting)
        rounds, index = divmod(rivals, len(rest))
        seconds, address = rest[index]
        if math.isinf(seconds):
            return Outlook(None, self._delay(self.chips[address], moment))
        if not rounds:
            return Outlook(seconds)
        if not self.durations:
            return Outlook(None, f"{rivals} others are first, and no lease has ended yet")
        return Outlook(seconds + rounds * fmean(self.durations))

    @property
    def busy(self) -> float | None:
        """Share of time in which chips were leased while someone waited for them; None if nobody has."""
        return self.busy_time / self.queued_time if self.queued_time > 0 else None

    def berths(self, moment: float) -> Iterator[Berth]:
        """Yield all chips in the form of a report."""
        for chip in self.chips.values():
            lease = self.leases.get(chip.address)
            common = (chip.identity, chip.circuits)
            if lease is not None:
                yield Berth(chip.address, "leased", *common, lease.member.label, moment - lease.begin)
            elif not chip.is_here:
                yield Berth(chip.address, "away", *common, "", moment - chip.since)
            elif chip.stranger:
                yield Berth(chip.address, "elsewhere", *common, chip.stranger, moment - chip.since)
            else:
                yield Berth(chip.address, "free", *common, "", moment - chip.since)

    def waiters(self, moment: float) -> Iterator[Waiter]:
        """Yield the queue in the form of a report."""
        line = self.order()
        for place, member in enumerate(line):
            yield Waiter(member.label, str(member.wish), moment - member.since, *self.outlook(line, place, moment))

    # details

    def _place(self, client: str, moment: float) -> Grant:
        """Return the place of a waiting client."""
        line = self.order()
        position = 1 + next(i for i, member in enumerate(line) if member.client == client)
        pause = min(SHORTEST_POLL * position, self.heartbeat / 2)
        outlook = self.outlook(line, position - 1, moment)
        return Grant(None, "", position, len(line), *outlook, pause, self.heartbeat)

    def _remainder(self, chip: Chip, moment: float) -> float:
        """Return the expected time until a chip is free (s); infinity if nothing can be said."""
        if self._is_free(chip):
            return 0.0
        lease = self.leases.get(chip.address)
        elapsed = math.inf if lease is None else moment - lease.begin
        longer = [duration - elapsed for duration in self.durations if duration > elapsed]
        return fmean(longer) if longer else math.inf

    def _delay(self, chip: Chip, moment: float) -> str:
        """Return why nothing can be said of the time until a chip is free."""
        lease = self.leases.get(chip.address)
        if lease is None:
            return f"{chip.stranger} has {chip.address} without the pool"
        text = f"the lease of {chip.address} has lasted {moment - lease.begin:.0f} s"
        if not self.durations:
            return f"no lease has ended yet; {text}"
        return f"{text}, longer than the last {len(self.durations)}"

    def _absence(self, candidates: Sequence[Chip], moment: float) -> str:
        """Return why no chip fits at present."""
        if candidates:
            away = ", ".join(f"{chip.address} for {moment - chip.since:.0f} s" for chip in candidates[:SHOWN])
            return f"the servers of all chips that fit are away: {away}"
        silent = ", ".join([chip.address for chip in self.chips.values() if not chip.identity][:SHOWN])
        return f"no chip fits, but for those of servers that have not answered yet: {silent}"

    def _lease_of(self, client: str) -> Lease | None:
        return next((lease for lease in self.leases.values() if lease.member.client == client), None)

    def _find(self, client: str) -> Member | None:
        members = [*self.queue, *(lease.member for lease in self.leases.values())]
        return next((member for member in members if member.client == client), None)

    def _require(self, claim: Claim, moment: float) -> None:
        """Refuse a claim that none of the chips can fulfil, once all of them are known."""
        if any(not chip.identity or chip.fits(claim.wish) for chip in self.chips.values()):
            return
        self._forget(claim.client, moment)
        chips = "; ".join(
            f"{', '.join(f'{name} {value}' for name, value in chip.identity.items())}, {chip.circuits} circuits"
            for chip in list(self.chips.values())[:SHOWN]
        )
        raise Refusal("value", f"the pool has no chip with {claim.wish}. It has: {chips}")

    def _forget(self, client: str, moment: float) -> None:
        """End the place or lease of a client that wants none."""
        lease = self._lease_of(client)
        if lease is not None:
            self._end(lease, moment)
        self.queue = [member for member in self.queue if member.client != client]
        self.changes += 1
        self.advance(moment)

    def _enqueue(self, member: Member | None, claim: Claim, origin: Origin, label: str, moment: float) -> Member | None:
        """Return the client in the queue, with its present wish; None if there is no room for another one."""
        if member is None:
            owner = origin.user or claim.label.rpartition(":")[0] or claim.label
            same_owner = sum(waiting.owner == owner for waiting in self.queue)
            if len(self.queue) >= PLACES or same_owner >= PLACES_OF_ONE:
                return None
            member = Member(claim.client, origin.user, owner, label, claim.label, claim.wish, moment, moment)
            self.queue.append(member)
            self.changes += 1
        member.wish = claim.wish
        return member

    def _restore(self, member: Member, previous: str, moment: float) -> None:
        """Give a client the chip again that it had, if that is free: after a loss of the broker's state."""
        chip = self.chips.get(previous)
        if chip is not None and _names(chip.stranger, member.mark) and chip.is_here and previous not in self.leases:
            self._grant(member, chip, moment)

    def _candidates(self, wish: Wish) -> list[Chip]:
        """Return the chips that fit a wish: only those with the recorded hash, if there are any."""
        fitting = [chip for chip in self.chips.values() if chip.fits(wish)]
        exact = [chip for chip in fitting if wish.recorded and chip.identity.get("chip_hash") == wish.recorded]
        return exact or fitting

    def _is_free(self, chip: Chip) -> bool:
        return chip.is_here and not chip.stranger and chip.address not in self.leases

    def _next(self) -> tuple[Member, Chip] | None:
        """Return who gets which chip next: of several, the one that the fewest others wait for; None for nobody."""
        if not self.queue or not any(map(self._is_free, self.chips.values())):
            return None
        for member in self.order():
            free = [chip for chip in self._candidates(member.wish) if self._is_free(chip)]
            if free:
                return member, min(free, key=lambda chip: (self._demand(chip), chip.since))
        return None

    def _demand(self, chip: Chip) -> int:
        return sum(chip.fits(member.wish) for member in self.queue)

    def _grant(self, member: Member, chip: Chip, moment: float) -> None:
        self.queue.remove(member)
        self.leases[chip.address] = Lease(member, chip.address, moment)
        member.last_contact = moment
        chip.stranger = ""
        chip.since = moment
        self.turns[member.owner] = moment
        if len(self.turns) > USERS:
            del self.turns[min(self.turns, key=lambda owner: self.turns[owner])]
        self.granted += 1
        self.changes += 1

    def _end(self, lease: Lease, moment: float) -> None:
        del self.leases[lease.address]
        self.chips[lease.address].since = moment
        self.changes += 1

    def _lose(self, lease: Lease, moment: float) -> None:
        """End a lease whose chip is gone; its client waits for the same chip, with the place of its first claim."""
        self._end(lease, moment)
        identity = self.chips[lease.address].identity
        if identity:
            lease.member.wish = Wish(identity, lease.member.wish.circuits)
        self.lost += 1
        self.queue.append(lease.member)

    def _miss(self, chip: Chip, moment: float) -> None:
        """Take a silent server out."""
        if chip.is_here:
            chip.is_here = False
            chip.since = moment
        if chip.address in self.leases:
            self._lose(self.leases[chip.address], moment)

    def _account(self, moment: float) -> None:
        """Add the time since the last call to the sums for `busy`."""
        elapsed = moment - self._accounted
        self._accounted = moment
        wishes = [member.wish for member in self.queue]
        wishes += [lease.member.wish for lease in self.leases.values() if not lease.is_taken]
        if not wishes or elapsed <= 0:
            return
        for chip in self.chips.values():
            lease = self.leases.get(chip.address)
            if chip.is_here and not chip.stranger and any(chip.fits(wish) for wish in wishes):
                self.queued_time += elapsed
                self.busy_time += elapsed if lease is not None and lease.is_taken else 0.0


def _names(holder: str, mark: str) -> bool:
    """Return whether the holder at a server is the client with a label, which follows a key's name, and may be cut."""
    label = holder.partition(" (")[2]
    return bool(mark) and (holder == mark or (bool(label) and f"{mark})".startswith(label)))
