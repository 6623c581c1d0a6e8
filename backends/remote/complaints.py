"""A log that others cannot fill: one line a minute for a kind of trouble with one peer."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from hxtrain.backends.text import printable

PERIOD = 60.0
"""Time in which a kind of trouble with one peer is logged once (s)."""
MOST = 60
"""Lines in this time, whoever causes them."""
LONGEST = 500
"""Longest text of a line (characters)."""


@dataclass
class Series:
    """Trouble of one kind with one peer: when it was logged (s), and how often it was not since."""

    logged: float
    silent: int = 0


class Complaints:
    """Logs trouble that others cause; for one thread.

    Args:
        log: where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._series: OrderedDict[tuple[str, str], Series] = OrderedDict()
        self._begin = -PERIOD
        self._lines = 0

    def warn(
        self, kind: str, peer: str, text: str, error: BaseException | None = None, level: int = logging.WARNING
    ) -> None:
        """Log a line, unless it would be one too many; the next one says how many there were meanwhile.

        Args:
            kind: of trouble, e.g. the code of an error reply.
            peer: who causes it.
            text: what is said.
            error: an error whose traceback follows.
            level: of the line.
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
