"""Plots of the benchmark: bars of the time of each task, and curves of the growth of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hxtrain.plots import style as style

from .scale import Growth
from .speed import FLOOR, OURS, SIZES, Speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_speed(speeds: list[Speed], path: Path) -> Path:
    """Write a PNG with a panel per task: bars on a logarithmic axis, with whiskers at the quartiles."""
    tasks = [task for task in SIZES if any(speed.task == task for speed in speeds)]
    n_bars = max(sum(speed.task == task for speed in speeds) for task in tasks)
    figure = style.new_figure(4.6 * len(tasks), 1.2 + 0.32 * n_bars)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _draw(axes, task, [speed for speed in speeds if speed.task == task])
    return style.save(figure, path)


def plot_scale(growths: list[Growth], path: Path) -> Path:
    """Write a PNG with a panel per axis: time per step over size, both logarithmic; the legend has the exponents."""
    from matplotlib.ticker import LogLocator

    names = list(dict.fromkeys(growth.axis for growth in growths))
    figure = style.new_figure(3.4 * len(names), 3.2)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        selection = (growth for growth in growths if growth.axis == name)
        for growth, colour in zip(selection, (style.BLUE, style.VERMILLION), strict=False):
            sizes = [s.point.size for s in growth.points]
            times = [1e3 * s.seconds for s in growth.points]
            label = f"{growth.kind}: {growth.exponent:.2f}"
            axes.plot(sizes, times, marker="o", markersize=4, color=colour, linewidth=1.6, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = sorted({s.point.size for growth in growths if growth.axis == name for s in growth.points})
        axes.set_xticks(sizes, map(str, sizes), size=7, rotation=45)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(name)
        axes.set_ylabel("time per step (ms)")
        axes.legend(fontsize=7, title="exponent", title_fontsize=7)
    return style.save(figure, path)


def _draw(axes: Axes, task: str, speeds: list[Speed]) -> None:
    for place, speed in enumerate(reversed(speeds)):
        middle, low, high = (1e3 * seconds for seconds in speed.time)
        axes.barh(place, middle, color=_colour(speed.work), height=0.7)
        axes.plot([low, high], [place, place], color="black", linewidth=1.0)
        axes.annotate(f"{middle:.3g}", (high, place), xytext=(3, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(range(len(speeds)), [speed.work for speed in reversed(speeds)], size=8)
    axes.set_xscale("log")
    axes.set_xlim(right=2.2 * max(1e3 * speed.time.high for speed in speeds))
    axes.set_xlabel("time (ms)")
    axes.set_title(task, size=10)


def _colour(work: str) -> str:
    if work == FLOOR:
        return style.GREEN
    return style.BLUE if work.startswith(OURS) else style.GREY
