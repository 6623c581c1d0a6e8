"""Suggestions for misspelt names of settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def did_you_mean(unknown: Iterable[object], names: Collection[str]) -> str:
    """Return a question that suggests names close to the unknown ones, as the end of an error message; may be empty."""
    matches = [match for name in unknown for match in get_close_matches(str(name).lower(), names, 1)]
    return f"; did you mean {', '.join(dict.fromkeys(matches))}?" if matches else ""
