"""Rate limits of a server's users: buckets that fill with time and empty with requests, bytes and work."""

from __future__ import annotations

from collections import OrderedDict

from .protocol import Refusal

BYTES = 2**16
"""Size of a message that costs one request more (bytes)."""
SHARE = 0.5
"""Share of the server's time that one user without the lease may take at the full rate."""
MOST = 1024
"""Largest number of buckets."""


class Rates:
    """Buckets of one second of requests.

    Args:
        rate: Requests per second of one user, on average.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._size = max(rate, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, user: str, moment: float) -> None:
        """Admit a user's request.

        Raises:
            Refusal: Busy, if there were too many requests.
        """
        level = self._level(user, moment)
        if level < 1:
            text = f"more than {self.rate:g} requests per second, or as much work; ask less often"
            raise Refusal("busy", text, (1 - level) / self.rate)

    def charge(self, user: str, moment: float, size: int = 0, seconds: float = 0.0) -> None:
        """Charge a request, with its size (bytes) and its working time (s)."""
        cost = 1 + size / BYTES + seconds * self.rate / SHARE
        self._buckets[user] = (max(self._level(user, moment) - cost, -self._size), moment)
        self._buckets.move_to_end(user)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)

    def _level(self, user: str, moment: float) -> float:
        level, last = self._buckets.get(user, (self._size, moment))
        return min(self._size, level + (moment - last) * self.rate)
