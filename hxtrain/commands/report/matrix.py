"""A matrix: rows are what the runs have, such as a rule and its task; columns are series, such as devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hxtrain.plots import style as style

from .config import Measure, ReportConfig
from .page import NONE, number, origin, table_row
from .records import ABSENT, Record
from .summary import Point, point


class Row(NamedTuple):
    """A row of a matrix.

    Attributes:
        names: Values of the keys of the rows, as texts.
        measure: Reported quantity.
        points: Summary of the runs of each series; None for a series without runs.
    """

    names: tuple[str, ...]
    measure: Measure
    points: tuple[Point | None, ...]

    @property
    def change(self) -> float | None:
        """Difference of the last from the first series; None if one of them has no runs."""
        first = self.points[0]
        last = self.points[-1]
        return None if first is None or last is None else last.mean - first.mean


def matrix_rows(config: ReportConfig, records: Sequence[Record]) -> list[Row]:
    """Return a row for each combination of values of the keys, in their order."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.matches(config.where):
            groups[tuple(_text(record.get(row.key)) for row in config.rows)].append(record)
    return [row for names in sorted(groups) if any((row := _row(config, names, groups[names])).points)]


def _row(config: ReportConfig, names: tuple[str, ...], records: Sequence[Record]) -> Row:
    measure = measure_of(config, records)
    points = []
    for series in config.series:
        runs = [record for record in records if record.below(series.folders) and record.matches(series.where)]
        points.append(point(config, runs, measure.key, measure.scale) if runs else None)
    return Row(names, measure, tuple(points))


def measure_of(config: ReportConfig, records: Sequence[Record]) -> Measure:
    """Return the quantity that a report gives of some runs: that of `measures` if one fits all of them, else `y`."""
    default = Measure({}, config.y, config.ylabel, config.yscale, config.digits)
    fitting = (measure for measure in config.measures if all(record.matches(measure.where) for record in records))
    return next(fitting, default)


def _text(value: Any) -> str:
    """Return a value of a key as a name in a row; sizes of layers are joined as those of a network."""
    if value == ABSENT:
        return NONE
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or NONE
    return str(value)


def matrix_table(config: ReportConfig, rows: Sequence[Row]) -> list[str]:
    """Return the table as lines of Markdown."""
    heads = [row.label or row.key for row in config.rows]
    heads += ["quantity", *(series.label for series in config.series)]
    heads += [*(["change"] if len(config.series) > 1 else []), "runs", *(column.label for column in config.columns)]
    return [table_row(heads), table_row(["---"] * len(heads)), *(table_row(_cells(config, row)) for row in rows)]


def _cells(config: ReportConfig, row: Row) -> list[str]:
    digits = row.measure.digits
    cells = [*row.names, row.measure.label]
    cells += ["no runs" if p is None else number(p.mean, p.std, digits) for p in row.points]
    if len(config.series) > 1:
        cells.append(NONE if row.change is None else f"{row.change:+.{digits}f}")
    cells.append(" / ".join("0" if p is None else str(len(p.records)) for p in row.points))
    for index, column in enumerate(config.columns):
        values = [None if p is None else p.columns[index] for p in row.points]
        cells.append(" / ".join(NONE if value is None else f"{value:.{column.digits}f}" for value in values))
    return cells


def matrix_page(config: ReportConfig, rows: Sequence[Row], missing: Sequence[str] = ()) -> str:
    """Return the page as Markdown.

    Args:
        config: Settings of the report.
        rows: Rows of the matrix.
        missing: Registered rules without a run.
    """
    title = config.title or config.name
    lines = [f"# {title}", "", *([config.text.strip(), ""] if config.text else [])]
    lines += [*matrix_table(config, rows), ""]
    if len(config.series) > 1:
        text = f"`change` is {config.series[-1].label} less {config.series[0].label}."
        lines += [f"{text} Cells with several numbers have one for each device, in the order of the columns.", ""]
    if missing:
        lines += [f"Rules without a run here: {', '.join(f'`{name}`' for name in missing)}.", ""]
    lines += [f"![{title}]({config.name}.png)", ""]
    points = {series.label: [row.points[index] for row in rows] for index, series in enumerate(config.series)}
    return "\n".join([*lines, *origin(config, {name: [p for p in part if p] for name, part in points.items()})]) + "\n"


def draw_matrix(config: ReportConfig, rows: Sequence[Row], file: Path) -> None:
    """Write the rows that report `y` as a PNG: a line per row, a colour per series."""
    lines = [row for row in rows if row.measure.key == config.y]
    figure = style.new_figure(7.5, 1.4 + 0.34 * len(lines))
    axes = figure.subplots()
    for index, series in enumerate(config.series):
        colour = style.COLOURS[index % len(style.COLOURS)]
        shift = 0.16 * (index - (len(config.series) - 1) / 2)
        label: str | None = series.label
        for place, row in enumerate(lines):
            value = row.points[index]
            if value is not None:
                axes.errorbar(
                    value.mean, place + shift, xerr=value.std or 0.0, color=colour, marker="o", markersize=4, capsize=2,
                    label=label,
                )  # fmt: skip
                label = None
    axes.set_yticks(range(len(lines)), [", ".join(row.names) for row in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(config.ylabel)
    axes.set_title(config.title, fontsize=10)
    axes.grid(alpha=0.3)
    if axes.containers:
        axes.legend(frameon=False, fontsize=8)
    style.save(figure, file)


def plain_rows(config: ReportConfig, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Return the rows as plain values, for a file."""
    return [
        {
            **{column.key: name for column, name in zip(config.rows, row.names, strict=True)},
            "quantity": row.measure.key,
            "change": row.change,
            "series": {
                series.label: None if p is None else _plain(config, row.measure, p)
                for series, p in zip(config.series, row.points, strict=True)
            },
        }
        for row in rows
    ]


def _plain(config: ReportConfig, measure: Measure, value: Point) -> dict[str, Any]:
    columns = {column.key: number for column, number in zip(config.columns, value.columns, strict=True)}
    runs = [{key: run.get(key) for key in ("seed", "chip", measure.key)} for run in value.records]
    return {"mean": value.mean, "std": value.std, **columns, "runs": runs}
