"""The last jobs of a few clients, which a server keeps so that it does not execute a repeated job again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from . import protocol as p
from .leases import Lease
from .worker import Outcome

CLIENTS = 8
"""Number of clients whose last replies are kept, besides the client of the running job."""


@dataclass
class Peer:
    """Destination of a reply: routing id of the connection, number of the request, and the client's name for people."""

    route: bytes
    request: int
    name: str = ""


@dataclass
class Job:
    """A job of a client: its request, the peer that waits for it, and its outcome (None: it runs)."""

    op: p.Operation
    client: str
    lease: Lease
    sequence: int
    digest: str
    started: float
    waiter: Peer
    outcome: Outcome | None = None
    cancelled: bool = False

    @property
    def size(self) -> int:
        """Return the memory that the outcome takes (bytes)."""
        return 0 if self.outcome is None else sum(len(frame) for frame in self.outcome.tensors)


class Ledger:
    """The last job of each kind of a few clients.

    Args:
        max_message: Largest message (bytes); replies of up to twice this size in total are kept.
    """

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._jobs: OrderedDict[tuple[str, str], Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Keep a job, and forget old ones."""
        self._jobs[job.client, job.op] = job
        self._jobs.move_to_end((job.client, job.op))
        size = sum(job.size for job in self._jobs.values())
        while len(self._jobs) > 1 and (len(self._jobs) > 2 * CLIENTS or size > 2 * self._max_message):
            _, forgotten = self._jobs.popitem(last=False)
            size -= forgotten.size

    def repeated(self, head: p.Head, lease: Lease) -> Job | None:
        """Return the job that a request repeats; None if it is a new one. A circuit goes with its lease.

        Raises:
            Refusal: Stale; or value, if a request of the same number had another content.
        """
        job = self._jobs.get((lease.member.client, head.op))
        if job is None or (head.op == "configure" and job.lease is not lease):
            return None
        if head.sequence < job.sequence:
            text = f"{head.op} {head.sequence} is older than {job.sequence}, the last one of this client"
            raise p.Refusal("stale", text)
        if head.sequence > job.sequence:
            return None
        if head.digest != job.digest:
            raise p.Refusal("value", f"{head.op} {head.sequence} was sent before with another content")
        return job
