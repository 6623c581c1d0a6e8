"""Means over the runs of a row or of a point of a curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from .config import ReportConfig, Series
from .records import ABSENT, Record


@dataclass(frozen=True)
class Point:
    """Summary of the runs of a series that differ only in seed and chip.

    Attributes:
        group: Value of the report's `group`; None for a row.
        x: Position on the axis; None for a row.
        mean: Mean of the report's `y` over the runs (scaled).
        std: Standard deviation of the report's `y` over the runs (scaled); None for a single run.
        columns: Means of the further quantities (scaled); None if a run lacks the quantity.
        records: Records of the runs.
    """

    group: Any
    x: float | None
    mean: float
    std: float | None
    columns: tuple[float | None, ...]
    records: tuple[Record, ...]


def summarise(config: ReportConfig, records: Sequence[Record]) -> dict[str, list[Point]]:
    """Return the points of each series, in the order of the axis; a series without runs has none."""
    selection = [record for record in records if record.matches(config.where)]
    return {series.label: _points(config, series, selection) for series in config.series}


def _points(config: ReportConfig, series: Series, records: Sequence[Record]) -> list[Point]:
    groups: dict[Any, list[Record]] = defaultdict(list)
    key = series.group or config.group
    for record in records:
        if record.below(series.folders) and record.matches(series.where):
            value = None if key is None else record.get(key)
            groups[tuple(value) if isinstance(value, list) else value].append(record)
    points = [_point(config, key, group, runs) for group, runs in groups.items()]
    return sorted(points, key=lambda point: 0.0 if point.x is None else point.x)


def _point(config: ReportConfig, key: str | None, group: Any, runs: list[Record]) -> Point:
    x = None
    if key is not None:
        places = [_number(run, config.x or key) for run in runs]
        x = config.xscale * fmean(places)
    return point(config, runs, config.y, config.yscale, group, x)


def point(
    config: ReportConfig, runs: Sequence[Record], key: str, scale: float, group: Any = None, x: float | None = None
) -> Point:
    """Return the summary of runs that differ only in seed and chip.

    Args:
        config: Settings with the further quantities.
        runs: Records of the runs, at least one.
        key: Key of the reported quantity.
        scale: Factor of the reported quantity.
        group: Value of the report's `group`; None for a row.
        x: Position on the axis; None for a row.
    """
    values = [scale * _number(run, key) for run in runs]
    return Point(
        group,
        x,
        fmean(values),
        stdev(values) if len(values) > 1 else None,
        tuple(_column(runs, column.key, column.scale) for column in config.columns),
        tuple(runs),
    )


def _number(run: Record, key: str) -> float:
    value = run.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{run.path}: {key} is {value!r}, expected a number; check the report's x, y and group")
    return float(value)


def _column(runs: Sequence[Record], key: str, scale: float) -> float | None:
    values = [run.get(key) for run in runs]
    if any(value is None or value == ABSENT for value in values):
        return None
    return scale * fmean(float(value) for value in values)
