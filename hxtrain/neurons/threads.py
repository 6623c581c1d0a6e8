"""Loops on the cores of the CPU: each takes a share of the neurons or of the samples.

No two threads write to the same place, and the result does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

MIN_SHARE = 150_000
"""Smallest share of a thread in values `[T, B, N]` of a backward pass (about 0.15 ms); a hand-over costs half of it."""

SHARES_PER_CORE = 4
"""Number of small shares for each core."""


def edges_of(count: int, values: int) -> list[int]:
    """Return the start of each core's share, and the end, of `count` items with `values` values in total."""
    parts = max(1, min(_cores(), count, values // MIN_SHARE))
    return [count * i // parts for i in range(parts + 1)]


def small_edges(count: int, values: int, grain: int) -> list[int]:
    """Return edges of several shares for each core, so that a core that is busy elsewhere takes fewer of them.

    Args:
        count: Number of items.
        values: Number of values of all items.
        grain: Number of items that stay together.
    """
    grains = -(-count // grain)
    cores = _cores()
    parts = max(1, min(SHARES_PER_CORE * cores if cores > 1 else 1, grains, values // MIN_SHARE))
    return [min(grains * i // parts * grain, count) for i in range(parts + 1)]


def run_shares(work: Callable[[int, int, int], object], edges: Sequence[int]) -> None:
    """Call `work` with number, start and end of each share, each on a core of its own.

    The calling thread works on the first share. It then takes the shares that no other thread has started, since other
    cores may be busy.
    """
    spans = list(enumerate(pairwise(edges)))
    futures = [_pool().submit(work, part, *span) for part, span in spans[1:]]
    work(0, *spans[0][1])
    for future, (part, span) in reversed([*zip(futures, spans[1:], strict=True)]):
        if future.cancel():
            work(part, *span)
    for future in futures:
        if not future.cancelled():
            future.result()


def run_loop(loop: Callable[..., object], edges: Sequence[int], *arguments: object) -> None:
    """Call a loop with start and end of each share, then `arguments`, each share on a core of its own."""
    run_shares(lambda part, begin, end: loop(begin, end, *arguments), edges)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="hxtrain-host")


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
