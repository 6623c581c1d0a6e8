"""The state of a pool on the disk, which a restarted broker goes on with."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hxtrain.backends.files import replacing
from hxtrain.backends.remote.wire import WireError, check

from .desk import PoolDesk
from .entries import Lease, Member

FORMAT = 2


@dataclass(frozen=True)
class SavedChip:
    """A chip as its server described it last."""

    address: str
    identity: dict[str, str]
    circuits: int


@dataclass(frozen=True)
class SavedPool:
    """Everything that a restart must not lose; times in s since 1970."""

    format: int
    chips: tuple[SavedChip, ...]
    leases: tuple[Lease, ...]
    queue: tuple[Member, ...]
    turns: dict[str, float]
    durations: tuple[float, ...]
    granted: int
    expired: int
    lost: int
    busy_time: float
    queued_time: float


def default_file(bind: str) -> Path:
    """Return the file of a broker's state that belongs to its address."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return folder / "hxtrain" / f"pool-{re.sub(r'[^A-Za-z0-9]+', '-', bind).strip('-')}.json"


def save(desk: PoolDesk, path: Path) -> None:
    """Write the state; the file is the old one or the new one, whatever happens.

    Raises:
        OSError: The file cannot be written.
    """
    shift = time.time() - time.monotonic()
    saved = SavedPool(
        FORMAT,
        tuple(SavedChip(chip.address, dict(chip.identity), chip.circuits) for chip in desk.chips.values()),
        tuple(_shifted(lease, shift) for lease in desk.leases.values()),
        tuple(_moved(member, shift) for member in desk.queue),
        {owner: moment + shift for owner, moment in desk.turns.items()},
        tuple(desk.durations),
        desk.granted,
        desk.expired,
        desk.lost,
        desk.busy_time,
        desk.queued_time,
    )
    with replacing(path) as file:
        os.chmod(file.name, 0o600)  # tokens of leases
        file.write(json.dumps(asdict(saved), indent=1).encode() + b"\n")


def restore(desk: PoolDesk, path: Path, moment: float) -> bool:
    """Take a saved state into a desk; return whether there is one.

    Clients and servers get the time of two heartbeats to be heard of. Leases of servers that have left the pool are
    over.

    Raises:
        ValueError: The file is no state of a pool.
        OSError: The file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    try:
        saved = check(SavedPool, json.loads(content))
        if saved.format != FORMAT:
            raise WireError(f"format {saved.format}, this version reads {FORMAT}")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"state={path} is not the state of a pool ({error}); move it away to begin with free chips, or name "
            "another file"
        ) from None
    shift = moment - time.time()
    for chip in saved.chips:
        if chip.address in desk.chips:
            desk.chips[chip.address].identity = chip.identity
            desk.chips[chip.address].circuits = chip.circuits
    leases = [_shifted(lease, shift, moment) for lease in saved.leases]
    desk.leases = {lease.address: lease for lease in leases if lease.address in desk.chips}
    desk.queue = [_moved(member, shift, moment) for member in saved.queue]
    for lease in leases:
        lease.is_taken = True  # of a client that does not know of it yet, the next claim gets it
    for member in [*desk.queue, *(lease.member for lease in leases)]:
        member.last_contact = moment
    desk.turns = {owner: min(turn + shift, moment) for owner, turn in saved.turns.items()}
    desk.durations.extend(saved.durations)
    desk.granted = saved.granted
    desk.expired = saved.expired
    desk.lost = saved.lost
    desk.busy_time, desk.queued_time = saved.busy_time, saved.queued_time
    return True


def _shifted(lease: Lease, shift: float, latest: float = math.inf) -> Lease:
    """Return a lease with times of another clock, which are in its past: that clock may have been set meanwhile."""
    return replace(lease, member=_moved(lease.member, shift, latest), begin=min(lease.begin + shift, latest))


def _moved(member: Member, shift: float, latest: float = math.inf) -> Member:
    """Return a client with times of another clock."""
    times = {name: min(getattr(member, name) + shift, latest) for name in ("since", "last_contact")}
    return replace(member, **times)
