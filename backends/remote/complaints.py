"""A log that peers cannot flood: one line a minute for a kind of trouble with one peer."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from hxtrain.backends.text import printable

PERIOD = 60.0
"""Time between two log lines on the same kind of trouble with the same peer (s)."""
MOST = 60
"""Largest number of lines in this time, over all peers."""
LONGEST = 500
"""Longest text of a line (characters)."""


@dataclass
class Series:
    """Trouble of one kind with one peer: time of the last log line (s), and number of unlogged cases since."""

    logged: float
    silent: int = 0


class Complaints:
    """Logs trouble that peers cause; for one thread.

    Args:
        log: Logger that gets the lines.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._series: OrderedDict[tuple[str, str], Series] = OrderedDict()
        self._begin = -PERIOD
        self._lines = 0

    def warn(
        self, kind: str, peer: str, text: str, error: BaseException | None = None, level: int = logging.WARNING
    ) -> None:
        """Log a line, unless there are too many; the next line counts the omitted ones.

        Args:
            kind: Kind of trouble, e.g. the code of an error reply.
            peer: Name of the peer that causes it.
            text: Text of the line.
            error: Error whose traceback follows the line.
            level: Log level of the line.
        """
        moment = time.monotonic()
        series = self._series.get((kind, peer))
        if (series is not None and moment - series.logged < PERIOD) or not self._has_room(moment):
            if series is not None:
                series.silent += 1
            return
        suffix = (
            f" (and {series.silent} times since the last such line)" if series is not None and series.silent else ""
        )
        self._series[kind, peer] = Series(moment)
        self._series.move_to_end((kind, peer))
        if len(self._series) > MOST:
            self._series.popitem(last=False)
        message = printable(text, LONGEST)
        self._log.log(level, "%s: %s%s", printable(peer, 200) or "someone", message, suffix, exc_info=error)

    def _has_room(self, moment: float) -> bool:
        if moment - self._begin >= PERIOD:
            self._begin = moment
            self._lines = 0
        self._lines += 1
        return self._lines <= MOST
