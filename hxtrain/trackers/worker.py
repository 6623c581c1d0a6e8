"""A tracker in a thread, so that neither its errors nor its waiting reach the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from .tracker import Tracker

PATIENCE = 60.0
"""Longest time that a call of a tracker may take before it is given up (s)."""
QUEUE = 10_000
"""Number of calls that may wait."""
INTERVAL = 0.05
"""Time between two looks at a tracker that is waited for (s)."""

Call = tuple[str, tuple[Any, ...]]


class Worker:
    """Calls a tracker in a thread, one call after the other.

    Args:
        name: Name of the tracker.
        tracker: Tracker to call.
        warn: Receiver of the warning if the tracker fails or hangs; the caller's thread calls it, once.
        patience: Longest time of a call (s).
    """

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None], patience: float = PATIENCE) -> None:
        self.name = name
        self.tracker = tracker
        self._warn = warn
        self._patience = patience
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._since: float | None = None
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def call(self, method: str, *arguments: Any) -> None:
        """Let the tracker do something, soon; nothing happens if it has failed."""
        self._look()
        if self._is_given_up:
            return
        if self._calls.qsize() >= QUEUE:
            self.give_up(f"is {QUEUE} calls behind")
        else:
            self._calls.put((method, arguments))

    def end(self, status: str) -> None:
        """Let the tracker end its run, soon; no call follows."""
        self.call("end", status)
        self._calls.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait for the calls after `end`, at most for a time, and as long as each is within its limit.

        Returns:
            Whether there is nothing left to wait for.
        """
        limit = time.monotonic() + seconds
        while self._thread.is_alive() and not self._is_given_up and time.monotonic() < limit:
            self._thread.join(INTERVAL)
            self._look()
        self._look()
        return self._is_given_up or not self._thread.is_alive()

    @property
    def n_waiting(self) -> int:
        """Number of calls that wait."""
        return self._calls.qsize()

    def give_up(self, reason: str) -> None:
        """Leave the tracker alone from now on, with a warning."""
        if not self._is_given_up:
            self._is_given_up = True
            self._warn(f"tracker {self.name} {reason}; the training goes on without it, and what it has logged stays")

    def _look(self) -> None:
        """Give the tracker up if it has failed, or hangs."""
        since = self._since
        if self._error is not None:
            reason, *_ = str(self._error).splitlines() or [""]
            self.give_up(f"failed with {type(self._error).__name__}: {reason}")
        elif since is not None and time.monotonic() - since > self._patience:
            self.give_up(f"has not answered for {self._patience:g} s")

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None or self._is_given_up:
                return
            method, arguments = call
            self._since = time.monotonic()
            try:
                getattr(self.tracker, method)(*arguments)
            except BaseException as error:  # a library of another author may raise anything, SystemExit included
                self._error = error
                return
            finally:
                self._since = None
