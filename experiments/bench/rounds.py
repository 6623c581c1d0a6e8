"""Timing in turns: what is compared runs in one process, one after the other in every round, in changing order.

Other work on the machine then meets all alike, and ratios hold where absolute times do not.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Name = TypeVar("Name")
Report = Callable[[int, int], None]
"""Is told how many rounds of how many are done."""


class Spread(NamedTuple):
    """Median and quartiles."""

    middle: float
    low: float
    high: float


def in_turns(
    works: Mapping[Name, Callable[[], object]],
    rounds: int,
    report: Report = lambda done, total: None,
    warm_up: int = 1,
    turn: float = 0.0,
) -> dict[Name, list[float]]:
    """Time works in turns.

    Args:
        works: what is timed, by name.
        rounds: how often each.
        report: is told of progress.
        warm_up: rounds before, which compile and fill caches; not counted.
        turn: length of a turn (s), which begins with a call that is not counted; 0: a single call, which is.

    Returns:
        Times (s) by name, one per round, in the order of the rounds: of the call, or the median of a turn's calls.
    """
    order, draw = list(works), random.Random(0)
    times: dict[Name, list[float]] = {name: [] for name in works}
    for done in range(-warm_up, rounds):
        draw.shuffle(order)
        for name in order:
            if turn > 0:
                works[name]()
            calls = [_seconds(works[name])]
            while sum(calls) < turn:
                calls.append(_seconds(works[name]))
            seconds = statistics.median(calls)
            if done >= 0:
                times[name].append(seconds)
        report(max(done + 1, 0), rounds)
    return times


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles of values."""
    found = sorted(values)
    quarter = len(found) // 4
    return Spread(statistics.median(found), found[quarter], found[-1 - quarter])


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return median and quartiles of the ratios of two works' times, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])
