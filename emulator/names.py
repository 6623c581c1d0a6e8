"""Names of settings that may be meant by names that are not known."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def did_you_mean(unknown: Iterable[object], names: Collection[str]) -> str:
    """Return a question after known names that are close to unknown ones, to end an error with; empty without any."""
    close = [match for name in unknown for match in get_close_matches(str(name).lower(), names, 1)]
    return f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
