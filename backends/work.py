"""What takes long in a device, such as a calibration, told to whoever listens: a command with a bar, or the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """How far something is.

    Attributes:
        task: is n_done, and why, in one sentence.
        stage: that begins; empty when all is n_done.
        n_done, stages: stages that are n_done, of how many.
    """

    task: str
    stage: str
    n_done: int
    stages: int


Listener = Callable[[Work], None]


def _log(work: Work) -> None:
    """Log the begin as a warning, which Python shows by default, and the rest as information."""
    if work.n_done == 0:
        log.warning("%s", work.task)
    log.info("%d of %d stages n_done%s", work.n_done, work.stages, f", next: {work.stage}" if work.stage else "")


_listener: ContextVar[Listener] = ContextVar("listener", default=_log)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of the work that devices do meanwhile in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(work: Work) -> None:
    """Tell the listener of this thread, or the log, how far something is."""
    _listener.get()(work)
