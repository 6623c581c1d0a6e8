"""Progress of long work in a device, such as a calibration, for a listener: a command with a bar, or the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

log = logging.getLogger(__name__)


class Work(NamedTuple):
    """Progress of a long task.

    Attributes:
        task: What the device does, and why, in one sentence.
        stage: Name of the stage that begins; empty at the end of the last one.
        n_done: Number of finished stages.
        stages: Number of all stages.
    """

    task: str
    stage: str
    n_done: int
    stages: int


Listener = Callable[[Work], None]


def _log(work: Work) -> None:
    """Log the start as a warning, which Python shows by default, and all other stages as information."""
    if work.n_done == 0:
        log.warning("%s", work.task)
    log.info("%d of %d stages done%s", work.n_done, work.stages, f", next: {work.stage}" if work.stage else "")


_listener: ContextVar[Listener] = ContextVar("listener", default=_log)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, report the work of devices in this thread to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(work: Work) -> None:
    """Report progress to the listener of this thread, or to the log if there is none."""
    _listener.get()(work)
