"""A report from runs to the files `NAME.md`, `NAME.png` and `NAME.json`; a gallery is a page with its plots alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hxtrain.commands.result import optional_plots
from hxtrain.rules import RULES
from hxtrain.runs.metrics import write_json, write_text
from hxtrain.runs.progress import Progress

from .config import ReportConfig
from .figure import draw
from .gallery import gallery_page
from .matrix import Row, draw_matrix, matrix_page, matrix_rows, plain_rows
from .page import page
from .records import read_records
from .summary import Point, summarise


def write_report(config: ReportConfig, progress: Progress) -> list[tuple[str, ...]]:
    """Write a report of any layout into `config.out`.

    Returns:
        Rows for the terminal: label, position on the axis, mean, standard deviation, number of runs.

    Raises:
        CheckpointError: There are no runs.
        ValueError: A run lacks a quantity.
    """
    if config.layout == "series":
        return rows(config, report(config, progress))
    Path(config.out).mkdir(parents=True, exist_ok=True)
    return _matrix(config, progress) if config.layout == "matrix" else _gallery(config, progress)


def report(config: ReportConfig, progress: Progress) -> dict[str, list[Point]]:
    """Write a report of series into `config.out`.

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
    Path(config.out).mkdir(parents=True, exist_ok=True)
    _write(config, page(config, points), _plain(config, points))
    with optional_plots(progress):
        draw(config, points, Path(config.out) / f"{config.name}.png")
    return points


def _matrix(config: ReportConfig, progress: Progress) -> list[tuple[str, ...]]:
    lines = matrix_rows(config, read_records(config.folders))
    missing = _missing_rules(config, lines)
    if missing:
        progress.warn(f"rules without runs below {', '.join(config.folders)}: {', '.join(missing)}; the page says so")
    _write(config, matrix_page(config, lines, missing), {"title": config.title, "rows": plain_rows(config, lines)})
    with optional_plots(progress):
        draw_matrix(config, lines, Path(config.out) / f"{config.name}.png")
    labels = [series.label for series in config.series]
    return [
        (
            ", ".join(line.names),
            label,
            f"{value.mean:.{line.measure.digits}f}",
            "" if value.std is None else f"{value.std:.{line.measure.digits}f}",
            str(len(value.records)),
        )
        for line in lines
        for label, value in zip(labels, line.points, strict=True)
        if value is not None
    ]


def _missing_rules(config: ReportConfig, lines: Sequence[Row]) -> list[str]:
    """Return the registered rules without a row, if the rows are those of rules."""
    keys = [row.key for row in config.rows]
    if "rule.kind" not in keys:
        return []
    names = {line.names[keys.index("rule.kind")] for line in lines}
    return [name for name in RULES.names() if name not in names]


def _gallery(config: ReportConfig, progress: Progress) -> list[tuple[str, ...]]:
    records = read_records(config.folders)
    write_text(Path(config.out) / f"{config.name}.md", gallery_page(config, records))
    names = {record.path.parent.name for record in records}
    missing = [experiment for experiment in config.experiments if experiment not in names]
    if missing:
        progress.warn(f"experiments without a run below {', '.join(config.folders)}: {', '.join(missing)}")
    return [
        (record.path.parent.name, "", f"{config.yscale * record.get(config.y):.{config.digits}f}", "", "1")
        for record in records
    ]


def _write(config: ReportConfig, text: str, values: dict[str, Any]) -> None:
    """Write the page and the plain values."""
    write_text(Path(config.out) / f"{config.name}.md", text)
    write_json(Path(config.out) / f"{config.name}.json", values)


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
