"""Timing in turns: all compared works run in one process, one after another in every round, in random order.

Other work on the machine then affects all of them alike, and ratios are more reliable than absolute times.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Name = TypeVar("Name")
Report = Callable[[int, int], None]
"""Called with the number of finished rounds and the number of all rounds."""


class Spread(NamedTuple):
    """Median and quartiles."""

    middle: float
    low: float
    high: float


def in_turns(
    works: Mapping[Name, Callable[[], object]],
    rounds: int,
    report: Report = lambda count, total: None,
    warm_up: int = 1,
    turn: float = 0.0,
) -> dict[Name, list[float]]:
    """Time works in turns.

    Args:
        works: Timed functions, by name.
        rounds: Number of timings of each work.
        report: Called with the number of finished rounds and the number of all rounds.
        warm_up: Number of initial rounds without timing, which compile code and fill caches.
        turn: Shortest length of a turn (s), which starts with a call without timing; 0 for a single timed call.

    Returns:
        Times (s) by name, one per round, in the order of the rounds: time of the call, or median over a turn's calls.
    """
    order = list(works)
    generator = random.Random(0)
    times: dict[Name, list[float]] = {name: [] for name in works}
    for index in range(-warm_up, rounds):
        generator.shuffle(order)
        for name in order:
            if turn > 0:
                works[name]()
            calls = [_seconds(works[name])]
            while sum(calls) < turn:
                calls.append(_seconds(works[name]))
            seconds = statistics.median(calls)
            if index >= 0:
                times[name].append(seconds)
        report(max(index + 1, 0), rounds)
    return times


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles of values."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return Spread(statistics.median(ordered), ordered[quarter], ordered[-1 - quarter])


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return median and quartiles of the ratios of the times of two works in the same round."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])
