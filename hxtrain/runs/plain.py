"""Plain files of a run: names, a parser that checks everything, differences. It needs the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CONFIG = "config.yaml"
"""File of a run directory with the settings of the run."""
METRICS = "metrics.jsonl"
"""File of a run directory with one record per epoch."""
RESULT = "result.json"
"""File of a run directory with the result of a finished run."""
LIVE = "live.json"
"""File of a run directory with the latest steps, one sample, and the weights, if `live=true`."""
LARGEST_FILE = 64 * 2**20
"""Largest file of JSON or YAML that is read (bytes)."""
DEEPEST = 12
"""Greatest depth of nested lists and mappings."""
MOST_VALUES = 10**6
"""Greatest number of values in a file, each counted as often as it is written out."""


def parse_json(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is no JSON, or `check_plain` refuses the value.
        RecursionError: The value is nested too deeply for the parser.
    """
    value = json.loads(text, parse_constant=_no_number)
    check_plain(value)
    return value


def check_plain(value: object) -> None:
    """Check that a value consists of text, 64-bit numbers, truth values, None, and lists and mappings of these.

    Raises:
        ValueError: The value holds another type, is nested too deeply, or is too large.
    """
    waiting = [(value, 0)]
    count = 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"it holds more than {MOST_VALUES} values, or is nested more than {DEEPEST} deep")
        if type(item) is dict:
            if not all(type(name) is str for name in item):
                raise ValueError("it has a name that is no text")
            waiting += [(part, depth + 1) for part in item.values()]
        elif type(item) in (list, tuple):
            waiting += [(part, depth + 1) for part in item]  # type: ignore[attr-defined]
        elif type(item) is int and not -(2**63) <= item < 2**63:
            raise ValueError("it has an integer of more than 64 bits")
        elif type(item) not in (str, int, float, bool, type(None)):
            raise ValueError(f"it holds a {type(item).__name__}, expected plain values")


def differing_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, each with the value of every run; None for a run without it.

    Args:
        settings: Nested settings of each run.
    """
    flat = [dict(_leaves(values)) for values in settings.values()]
    names = dict.fromkeys(name for values in flat for name in values)
    rows = {name: [values.get(name) for values in flat] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in values.items():
        leaves += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return leaves


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
