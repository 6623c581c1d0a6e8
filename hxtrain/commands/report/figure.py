"""The report as a figure: curves or rows with error bars; published values have open markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hxtrain.plots import style as style

from .config import ReportConfig, Series
from .summary import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(config: ReportConfig, points: Mapping[str, Sequence[Point]], file: Path) -> None:
    """Write the figure as a PNG."""
    figure = style.new_figure(7, 4.5 if config.group is not None else 1.2 + 0.4 * len(config.series))
    axes: Axes = figure.subplots()
    colours = [style.COLOURS[i % len(style.COLOURS)] for i in range(len(config.series))]
    if config.group is None:
        _rows(config, points, axes)
    else:
        for series, colour in zip(config.series, colours, strict=True):
            _curve(series, points[series.label], axes, colour)
        axes.set(xlabel=config.xlabel or config.x or config.group, ylabel=config.ylabel)
        if config.xlog:
            axes.set_xscale("log")
        axes.legend(frameon=False, fontsize=8)
    axes.set_title(config.title, fontsize=10)
    axes.grid(alpha=0.3)
    style.save(figure, file)


def _curve(series: Series, points: Sequence[Point], axes: Axes, colour: str) -> None:
    places = [point.x for point in points if point.x is not None]
    means = [point.mean for point in points]
    spreads = [point.std or 0.0 for point in points]
    if points:
        axes.errorbar(places, means, spreads, color=colour, marker="o", capsize=3, label=series.label)
    published = [value for value in series.published if value.x is not None]
    if published:
        axes.errorbar(
            [value.x or 0.0 for value in published],
            [value.mean for value in published],
            [value.std or 0.0 for value in published],
            color=colour,
            marker="s",
            mfc="white",
            linestyle=":",
            capsize=3,
            label=f"{series.label}, published",
        )


def _rows(config: ReportConfig, points: Mapping[str, Sequence[Point]], axes: Axes) -> None:
    """Draw a row per series, the first on top."""
    names = [series.label for series in config.series]
    for place, series in enumerate(config.series):
        for point in points[series.label]:
            label = "here" if place == 0 else None
            axes.errorbar(
                point.mean, place, xerr=point.std or 0.0, color=style.BLUE, marker="o", capsize=3, label=label
            )
        for value in series.published:
            label = "published" if place == 0 else None
            axes.errorbar(
                value.mean, place + 0.2, xerr=value.std or 0.0, color=style.VERMILLION, marker="s", mfc="white",
                capsize=3, label=label,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(config.ylabel)
    axes.legend(frameon=False, fontsize=8)
