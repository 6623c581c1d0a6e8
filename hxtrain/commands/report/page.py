"""The report as a page of Markdown: table, plot, and origin of the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .config import PublishedValue, ReportConfig
from .records import Record
from .summary import Point

NONE = "-"


def page(config: ReportConfig, series_points: Mapping[str, Sequence[Point]]) -> str:
    """Return the page as Markdown."""
    lines = [f"# {config.title or config.name}", ""]
    if config.text:
        lines += [config.text.strip(), ""]
    lines += [*table(config, series_points), "", f"![{config.title or config.name}]({config.name}.png)", ""]
    return "\n".join([*lines, *origin(config, series_points)]) + "\n"


def table(config: ReportConfig, series_points: Mapping[str, Sequence[Point]]) -> list[str]:
    """Return the table as lines of Markdown."""
    is_curve = config.group is not None
    heads = ["", *([config.xlabel or config.x or str(config.group)] if is_curve else []), config.ylabel, "runs"]
    if is_curve and config.x is not None:
        heads.insert(1, str(config.group))
    heads += [*(column.label for column in config.columns), "published"]
    lines = [table_row(heads), table_row(["---"] * len(heads))]
    for series in config.series:
        points = series_points[series.label]
        if not points:
            cells = ["no runs" if head == config.ylabel else NONE for head in heads[1:-1]]
            lines.append(table_row([series.label, *cells, _published(config, series.published)]))
        lines += [table_row(_cells(config, series.label, series.published, point)) for point in points]
        lines += [
            table_row(_isolated_cells(config, series.label, value, len(heads)))
            for value in _isolated_values(series.published, points)
        ]
    return lines


def _isolated_values(published: Sequence[PublishedValue], points: Sequence[Point]) -> list[PublishedValue]:
    """Return the published values of a curve at positions without a point."""
    return [v for v in published if v.x is not None and not any(_is_close(v.x, point.x) for point in points)]


def _isolated_cells(config: ReportConfig, label: str, value: PublishedValue, width: int) -> list[str]:
    """Return the cells of a published value at a position without a point."""
    place = [NONE, f"{value.x:.4g}"] if config.x is not None else [f"{value.x:.4g}"]
    return [label, *place, *[NONE] * (width - len(place) - 2), _published(config, [value])]


def _cells(config: ReportConfig, label: str, published: Sequence[PublishedValue], point: Point) -> list[str]:
    cells = [label]
    if config.group is not None:
        if config.x is not None:
            cells.append(str(point.group))
        cells.append(NONE if point.x is None else f"{point.x:.4g}")
        published = [value for value in published if value.x is not None and _is_close(value.x, point.x)]
    cells += [number(point.mean, point.std, config.digits), str(len(point.records))]
    for column, value in zip(config.columns, point.columns, strict=True):
        cells.append(NONE if value is None else f"{value:.{column.digits}f}")
    return [*cells, _published(config, published)]


def _is_close(x: float, y: float | None) -> bool:
    return y is not None and abs(x - y) <= 1e-9 + 1e-3 * abs(x)


def _published(config: ReportConfig, values: Sequence[PublishedValue]) -> str:
    texts = [
        number(value.mean, value.std, 1) + (f" ({value.source})" if value.source else "")
        for value in values
        if config.group is None or value.x is not None
    ]
    return "; ".join(texts) or NONE


def number(mean: float, std: float | None, digits: int) -> str:
    """Return `mean ± std`."""
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def table_row(cells: Sequence[str]) -> str:
    """Return a row of a table of Markdown."""
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Return a text with escapes for Markdown and HTML, on one line."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def origin(config: ReportConfig, series_points: Mapping[str, Sequence[Point]]) -> list[str]:
    """Return lines on the origin of the values."""
    records = list(
        {run.path: run for points in series_points.values() for point in points for run in point.records}.values()
    )
    lines = [
        "How obtained: `±` is the standard deviation over a row's runs, which differ in seed, chip, or as said above.",
        "",
    ]
    if config.commands:
        lines += ["```bash", *config.commands, "```", ""]
    if not records:
        return [*lines, "No runs were found."]
    lines += [f"- {len(records)} finished runs or evaluations, {_hours(records):.2f} hours of wall-clock time in all."]
    lines += [f"- Seeds: {_listed(run.get('seed') for run in records)}."]
    lines += [f"- Chips: {_listed(_chip(run) for run in records)}."]
    lines += [f"- Data: {_listed(_data(run) for run in records)}."]
    lines += _choices(records)
    lines += [f"- Versions: {_listed(_versions(run) for run in records)}."]
    if any(run.get("backend") == "emulator" for run in records):
        lines += ["- All chips are emulated; nothing here was run on a physical chip."]
    return lines


def _hours(records: Sequence[Record]) -> float:
    """Return the total hours of all runs; the training time of an interrupted run includes all its parts."""
    times = [[run.get(key) for key in ("seconds", "training_seconds")] for run in records]
    return (
        sum(max((float(value) for value in pair if isinstance(value, int | float)), default=0.0) for pair in times)
        / 3600
    )


def _chip(run: Record) -> str:
    if run.get("chip") in (None, "none", "absent"):
        return "none (software)"
    return f"{run.get('chip')} {run.get('preset')} ({run.get('chip_hash')})"


def _data(run: Record) -> str:
    sha = str(run.get("data_sha256"))[:16]
    return f"{run.get('data')} ({sha}, {run.get('test_samples')} {run.get('evaluated_on')} samples)"


def _choices(records: Sequence[Record]) -> list[str]:
    """Return the lines on what the epochs were chosen on; none for runs that do not say it."""
    choices = {str(value) for run in records if (value := run.get("selected_on")) is not None}
    lines = [f"- Epochs chosen on: {_listed(choices)}."] if choices else []
    if "test" in choices:
        lines += ["- Epochs of some runs were chosen on the test samples: their accuracies are optimistic."]
    return lines


def _versions(run: Record) -> str:
    versions = run.get("versions")
    return (
        ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, dict) else str(versions)
    )


def _listed(values: object) -> str:
    return "; ".join(sorted({_escaped(str(value)) for value in values}))  # type: ignore[attr-defined]
