"""The sign of life of a client that holds a lease."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time

from hxtrain.backends.recording import DeviceError

from . import protocol as p
from .link import Link, LinkSettings

log = logging.getLogger(__name__)


class Heart:
    """Tells the server that the client lives while it does not use the chip; a thread with its own connection.

    Args:
        settings: Settings of the connection.
        timeout: Silence after which the server ends a lease (s).
        link: Link of the client; while it is in use, no heartbeat is sent.

    Attributes:
        lease: Token of the lease; empty without one.
        lost: Token of the last lease that is over.
    """

    def __init__(self, settings: LinkSettings, timeout: float, link: Link) -> None:
        self.lease = ""
        self.lost = ""
        self._interval = timeout / 4
        self._used = link
        self._stop = threading.Event()
        patient = LinkSettings(settings.address, settings.keys, self._interval, self._interval)
        self._link = Link(patient, self._stop.is_set)
        self._thread = threading.Thread(target=self._beat, name="hxtrain-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            lease = self.lease
            if lease == self.lost or time.monotonic() - self._used.last_contact < self._interval:
                continue
            try:
                self._link.request("heartbeat", p.Empty(), lease=lease)
            except p.Refusal:
                self.lost = lease  # the next run of the client reports it
            except (DeviceError, ValueError) as error:
                log.debug("no heartbeat: %s", error)
        self._link.close()


def label() -> str:
    """Return a label of this client for people: user, host and process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "?"
    text = f"{user}@{socket.gethostname()}:{os.getpid()}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:96]
