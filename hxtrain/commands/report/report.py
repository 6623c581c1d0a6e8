"""A report from runs to the files `NAME.md`, `NAME.png` and `NAME.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hxtrain.commands.result import optional_plots
from hxtrain.runs.metrics import write_json, write_text
from hxtrain.runs.progress import Progress

from .config import ReportConfig
from .figure import draw
from .page import page
from .records import read_records
from .summary import Point, summarise


def report(config: ReportConfig, progress: Progress) -> dict[str, list[Point]]:
    """Write a report into `config.out`.

    Returns:
        The points of each series.

    Raises:
        CheckpointError: There are no runs.
        ValueError: A run lacks a quantity.
    """
    points = summarise(config, read_records(config.folders))
    for series in config.series:
        if not points[series.label]:
            folders = ", ".join(series.folders or config.folders)
            progress.warn(f"series {series.label!r} has no runs below {folders}; its row says so")
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{config.name}.md", page(config, points))
    write_json(folder / f"{config.name}.json", _plain(config, points))
    with optional_plots(progress):
        draw(config, points, folder / f"{config.name}.png")
    return points


def rows(config: ReportConfig, series_points: Mapping[str, Sequence[Point]]) -> list[tuple[str, ...]]:
    """Return label, position on the axis, mean, standard deviation and number of runs, for the terminal."""
    return [
        (
            label,
            "" if point.x is None else f"{point.x:.4g}",
            f"{point.mean:.{config.digits}f}",
            "" if point.std is None else f"{point.std:.{config.digits}f}",
            str(len(point.records)),
        )
        for label, points in series_points.items()
        for point in points
    ]


def _plain(config: ReportConfig, series_points: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    return {
        "title": config.title,
        "y": config.y,
        "x": config.x or config.group,
        "series": {
            label: [
                {
                    "group": point.group,
                    "x": point.x,
                    "mean": point.mean,
                    "std": point.std,
                    **{column.key: value for column, value in zip(config.columns, point.columns, strict=True)},
                    "runs": [
                        {"seed": run.get("seed"), "chip": run.get("chip"), config.y: run.get(config.y)}
                        for run in point.records
                    ],
                }
                for point in points
            ]
            for label, points in series_points.items()
        },
    }
