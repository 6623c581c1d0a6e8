"""The threads of a broker that ask its servers how they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hxtrain.backends.recording import DeviceError
from hxtrain.backends.remote.complaints import Complaints
from hxtrain.backends.remote.link import Link, LinkSettings
from hxtrain.backends.remote.protocol import Empty, Refusal, Report
from hxtrain.backends.remote.reception import SOFTWARE

log = logging.getLogger(__name__)


class ServerFacts(NamedTuple):
    """What a server says: address, identity and circuits of its chip, who has it, and the server's random name."""

    address: str
    identity: Mapping[str, str]
    circuits: int
    holder: str
    instance: str


class Watch:
    """Asks a server again and again, in a thread with its own connection.

    Args:
        address: Address of the server.
        keys: Directory with `client.key_secret` and `server.key`; None without keys.
        period: Time between two questions, and time in which an answer must come (s).
        report: Function that gets each answer; it is called in the thread.

    Raises:
        ValueError: The address is not valid, or keys are missing or broken.
    """

    def __init__(self, address: str, keys: str | None, period: float, report: Callable[[ServerFacts], None]) -> None:
        self._period = period
        self._report = report
        self._stop = threading.Event()
        self._complaints = Complaints(log)
        self._link = Link(LinkSettings(address, keys, period, period), self._stop.is_set)
        self._thread = threading.Thread(target=self._ask, name=f"hxtrain-watch {address}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end of the thread."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread.ident is not None:
            self._thread.join()

    def _ask(self) -> None:
        address = self._link.settings.address
        while not self._stop.is_set():
            try:
                welcome = self._link.greet(SOFTWARE)
                status = self._link.request("status", Empty()).read(Report)
                holder = "" if status.holder is None else status.holder.label
                circuits = welcome.capabilities.neuron_circuits
                self._report(ServerFacts(address, welcome.identity, circuits, holder, welcome.instance))
            except (DeviceError, ValueError, Refusal) as error:
                if not self._stop.is_set():
                    self._complaints.warn("silent", "a server of the pool", str(error))
            self._stop.wait(self._period)
        self._link.close()
