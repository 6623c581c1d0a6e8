"""Ranges of numbers: which values a field accepts, and the text of the error for any other value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`.

    Attributes:
        low: Smallest value.
        high: Largest value.
        above: Whether `low` itself is excluded.
        whole: Whether only whole numbers (`int`) are accepted.
        optional: Whether None is accepted, too.
        unit: Unit that messages show.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False
    optional: bool = False
    unit: str = ""

    def __contains__(self, value: object) -> bool:
        """Return whether a value is accepted; NaN and values that are no numbers are not."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return math.isfinite(value) and (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        """Describe the accepted values."""
        kind = "a whole number" if self.whole else "a finite number"
        low = "" if self.low == -math.inf else f" {'>' if self.above else '>='} {self.low:g}"
        high = "" if self.high == math.inf else f"{' and' if low else ''} <= {_format(self.high)}"
        return f"{kind}{low}{high}{', or None' if self.optional else ''}"


def misfits(holder: object, ranges: Mapping[str, Range], prefix: str = "") -> list[str]:
    """Return a text for each attribute outside its range: its name, its value, and the accepted values."""
    return [
        f"{prefix}{name}={_text(getattr(holder, name))}{' ' * bool(allowed.unit)}{allowed.unit} must be {allowed}"
        for name, allowed in ranges.items()
        if getattr(holder, name) not in allowed
    ]


def _text(value: object) -> str:
    return _format(value) if isinstance(value, int | float) else ascii(value)[:80]


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) and abs(value) < 10**18 else f"{float(value):.6g}"


COUNT = Range(1, whole=True)
POSITIVE = Range(0, above=True)
FINITE = Range()
DURATION = Range(0, above=True, unit="s")
