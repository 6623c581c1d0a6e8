"""One statistic of a chip and its bound."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One statistic.

    Attributes:
        name: Name of the statistic.
        unit: Unit of the value.
        value: Value on the emulator.
        low: Lower bound.
        high: Upper bound.
        source: Source of the bounds.
        control: Whether the check is a negative control, which passes if the value is *outside* the bounds.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    source: str
    control: bool = False

    @property
    def passed(self) -> bool:
        """Return whether the value is inside its bounds (outside, for a negative control)."""
        return bool(self.low <= self.value <= self.high) != self.control


def check_rows(checks: list[Check]) -> list[tuple[str, ...]]:
    """Return the table: statistic, value, bound, verdict, source."""
    rows: list[tuple[str, ...]] = []
    for check in checks:
        bound = f"not in {check.low:.4g}..{check.high:.4g}" if check.control else f"{check.low:.4g}..{check.high:.4g}"
        verdict = "pass" if check.passed else "FAIL"
        rows.append((check.name, f"{check.value:.4g} {check.unit}".strip(), bound, verdict, check.source))
    return rows
