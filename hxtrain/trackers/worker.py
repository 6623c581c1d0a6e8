"""A tracker in a thread, so that neither its errors nor its waiting reach the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Full, Queue
from typing import Any

from .tracker import Tracker

PATIENCE = 60.0
"""Longest time that a call of a tracker may take before it is given up (s)."""
QUEUE = 10_000
"""Number of calls that may wait."""

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
        self._calls: Queue[Call | None] = Queue(QUEUE)
        self._error: Exception | None = None
        self._since: float | None = None
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def call(self, method: str, *arguments: Any) -> None:
        """Let the tracker do something, soon; nothing happens if it has failed."""
        self._look()
        if self._is_given_up:
            return
        try:
            self._calls.put_nowait((method, arguments))
        except Full:
            self._give_up(f"is {QUEUE} calls behind")

    def close(self, status: str) -> None:
        """End the run of the tracker, and wait for that."""
        self.call("end", status)
        if self._is_given_up:
            return
        self._calls.put(None)
        self._thread.join(self._patience)
        self._look()
        if self._thread.is_alive() and not self._is_given_up:
            self._give_up(f"does not end within {self._patience:g} s")

    def _look(self) -> None:
        """Give the tracker up if it has failed, or hangs."""
        if self._is_given_up:
            return
        since = self._since
        if self._error is not None:
            self._give_up(f"failed with {type(self._error).__name__}: {self._error}")
        elif since is not None and time.monotonic() - since > self._patience:
            self._give_up(f"has not answered for {self._patience:g} s")

    def _give_up(self, reason: str) -> None:
        self._is_given_up = True
        self._warn(f"tracker {self.name} {reason}; the training goes on without it, and its files are as they were")

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None or self._is_given_up:
                return
            method, arguments = call
            self._since = time.monotonic()
            try:
                getattr(self.tracker, method)(*arguments)
            except Exception as error:  # a library of another author may raise anything
                self._error = error
                return
            finally:
                self._since = None
