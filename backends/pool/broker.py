"""The broker of a pool: one address in front of many chip servers. Recordings do not pass through it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty as NothingQueued
from queue import SimpleQueue
from typing import IO, List, Optional  # noqa: UP035 - OmegaConf resolves them on every Python

import zmq

from hxtrain.backends.remote import protocol as p
from hxtrain.backends.remote.address import lock_path
from hxtrain.backends.remote.claims import Claim, Grant
from hxtrain.backends.remote.leases import Origin
from hxtrain.backends.remote.link import LinkSettings
from hxtrain.backends.remote.metrics import gauge_lines, request_lines
from hxtrain.backends.remote.reception import SOFTWARE, TICK, Answer, Reception, ReceptionSettings
from hxtrain.backends.remote.wire import Lines

from .desk import SAME_SERVER, PoolDesk
from .report import PoolReport
from .state import default_file, restore, save
from .watch import ServerFacts, Watch

log = logging.getLogger(__name__)
MOST_SERVERS = 256


@dataclass
class PoolSettings(ReceptionSettings):
    """Settings of a broker.

    Attributes:
        bind: Address, e.g. `tcp://127.0.0.1:5554`, `ipc:///run/pool.sock`; port `*` takes a free one.
        keys: Directory of keys (`hxtrain serve keys DIR`), for clients of the broker and as a client of the servers;
            None serves this machine only.
        max_message: Largest message (bytes).
        servers: Addresses of the chip servers, as clients reach them.
        heartbeat: Time between signs of life of clients and servers (s); two of them in silence end a lease.
        state: File that keeps leases and queue over a restart; None: one that belongs to `bind`, in
            `~/.local/state/hxtrain`.
    """

    bind: str = "tcp://127.0.0.1:5554"
    max_message: int = 2**20
    servers: List[str] = field(default_factory=list)  # noqa: UP006
    heartbeat: float = 5.0
    state: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("heartbeat")
        if not 0 < len(self.servers) <= MOST_SERVERS:
            raise ValueError(
                f"servers={self.servers} must name 1 to {MOST_SERVERS} chip servers, such as "
                "servers=[tcp://127.0.0.1:5555,tcp://lab:5555]; start each with hxtrain serve"
            )
        repeated = sorted({address for address in self.servers if self.servers.count(address) > 1})
        if repeated:
            raise ValueError(f"servers names {', '.join(repeated)} more than once; a chip can be leased once")
        for address in self.servers:
            try:
                is_pool = LinkSettings(address).is_pool
            except ValueError as error:
                raise ValueError(f"servers: {error}") from None
            if is_pool:
                raise ValueError(f"servers: {address} is a pool; name the servers of its chips (hxtrain serve)")


class Broker(Reception):
    """Leases the chips of servers until `stop`.

    Args:
        settings: Settings of the broker.

    Attributes:
        settings: Settings of the broker.
        file: File of the state.
        has_state: Whether the file was there.

    Raises:
        ValueError: Keys are missing or broken, the address cannot be bound, or the state file is none or in use.
        OSError: The state cannot be read or written.
    """

    OTHERWISE = "{} is for a chip, and this is a pool of chips: write address=pool://..., not tcp://..."
    _desk: PoolDesk

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.file = default_file(settings.bind) if settings.state is None else Path(settings.state).expanduser()
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self.file)
        try:
            moment = time.monotonic()
            self._start = moment
            self._desk = PoolDesk(list(settings.servers), settings.heartbeat, moment)
            self.has_state = restore(self._desk, self.file, moment)
            save(self._desk, self.file)
            self._facts: SimpleQueue[ServerFacts] = SimpleQueue()
            period = settings.heartbeat / 2
            self._watches = [Watch(name, settings.keys, period, self._facts.put) for name in settings.servers]
            super().__init__(settings)
        except BaseException:
            self._lock.close()
            raise
        self._saved = self._desk.changes
        self._answers = {
            "claim": Answer(Claim, self._claim),
            "heartbeat": Answer(p.Empty, self._heartbeat),
            "release": Answer(p.Empty, self._release),
            "status": Answer(p.Empty, self._status),
            "metrics": Answer(p.Empty, self._metrics),
        }

    @property
    def n_leases(self) -> int:
        """Number of leases."""
        return len(self._desk.leases)

    def serve(self) -> None:
        """Answer requests until `stop`; leases go on without a broker, and are those of the next one."""
        poller = zmq.Poller()
        poller.register(self._front.link.fileno(), zmq.POLLIN)
        for watch in self._watches:
            watch.start()
        try:
            while not self._stop.is_set():
                ready = dict(poller.poll(int(TICK * 1000)))
                if self._front.link.fileno() in ready:
                    self._answer_some()
                self._look_after_servers()
                self._desk.advance(time.monotonic())
                self._save()
                self._look_after_front(poller)
        finally:
            for watch in self._watches:
                watch.stop()
            for watch in self._watches:
                watch.join()
            self._hang_up()
            self._lock.close()

    def _look_after_servers(self) -> None:
        while True:
            try:
                facts = self._facts.get_nowait()
            except NothingQueued:
                return
            self._desk.answer(
                facts.address, facts.identity, facts.circuits, facts.holder, time.monotonic(), facts.instance
            )
            stranger = self._desk.chips[facts.address].stranger
            if stranger.startswith(SAME_SERVER):
                self._complaints.warn("double", facts.address, f"it is {stranger}; the chip is leased there alone")

    def _save(self) -> None:
        """Write the state if it has changed; while the disk is full, leases are given all the same."""
        if self._desk.changes == self._saved:
            return
        try:
            save(self._desk, self.file)
        except OSError as error:
            text = f"cannot be written ({error.strerror}); a restart would forget the latest leases"
            self._complaints.warn("state", str(self.file), text)
            return
        self._saved = self._desk.changes

    # requests

    def _claim(self, claim: Claim, lease: str, origin: Origin) -> Grant:
        granted = self._desk.granted
        grant = self._desk.claim(claim, origin, self._label(claim.label, origin), time.monotonic())
        if self._desk.granted != granted and grant.lease is not None:
            self._complaints.warn("leased", claim.label, f"it has {grant.address}", level=logging.INFO)
        self._save()  # before the client knows its lease
        return grant

    def _release(self, body: p.Empty, lease: str, origin: Origin) -> p.Empty:
        self._desk.release(lease, origin.user, time.monotonic())
        self._save()
        return p.Empty()

    def _status(self, body: p.Empty, lease: str, origin: Origin) -> PoolReport:
        desk = self._desk
        moment = time.monotonic()
        return PoolReport(
            SOFTWARE,
            moment - self._start,
            desk.heartbeat,
            tuple(desk.berths(moment)),
            tuple(desk.waiters(moment)),
            desk.granted,
            desk.expired,
            desk.lost,
            desk.busy,
        )

    def _metrics(self, body: p.Empty, lease: str, origin: Origin) -> p.Text:
        desk = self._desk
        moment = time.monotonic()
        states = [berth.state for berth in desk.berths(moment)]
        gauges: Mapping[str, tuple[str, float]] = {
            "uptime_seconds": ("Time since the broker started.", moment - self._start),
            **{f"chips_{state}": (f"Chips that are {state}.", states.count(state)) for state in sorted({*states})},
            "chips": ("Chips of the pool.", len(states)),
            "queue_length": ("Clients that wait for a chip.", len(desk.queue)),
            "leases": ("Leases that were given.", desk.granted),
            "leases_expired": ("Leases that ended because their client was silent.", desk.expired),
            "leases_lost": ("Leases that ended because their server was silent.", desk.lost),
            "busy_seconds": ("Time of leased chips while someone waited for them.", desk.busy_time),
            "queued_seconds": ("Time of chips while someone waited for them.", desk.queued_time),
        }
        lines = [*request_lines("hxtrain_pool", self._counters), *gauge_lines("hxtrain_pool", gauges)]
        return p.Text(Lines("\n".join(lines) + "\n"))


def _locked(file: Path) -> IO[str]:
    try:
        return lock_path(file)
    except OSError as error:
        raise ValueError(f"state={file}: {error.strerror}; is another pool running with it?") from None
