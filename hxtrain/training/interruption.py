"""Signals that end a training after its current step: from the keyboard, and notices of a cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NOTICES = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals by which a cluster tells a job that its time is over; Windows has none of them."""
GRACE = 60.0
"""Time after such a signal in which the current step must end (s); the state before it is saved otherwise."""


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event when SIGINT arrives within the block, or a notice of a cluster, in place of an abrupt end.

    A second SIGINT raises `KeyboardInterrupt` at once. A notice counts if there is a handler, that of a launcher, which
    puts the job into the queue again (submitit: `checkpoint_and_try_requeue`). It is called at the end of the block,
    when the state is saved. A step that does not end within `GRACE`, since it waits for a chip, is given up by
    `KeyboardInterrupt`. Signals reach the main thread alone; in others nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    notices = {number: handler for number in NOTICES if callable(handler := signal.getsignal(number))}
    arrived: list[int] = []
    limit = threading.Timer(GRACE, os.kill, (os.getpid(), signal.SIGINT))
    limit.daemon = True

    def handle(number: int, frame: FrameType | None) -> None:
        if number in notices:
            if not arrived:
                limit.start()
            arrived.append(number)
        elif stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, *notices)}
    try:
        yield
    finally:
        limit.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in arrived[:1]:
            notices[number](number, None)
