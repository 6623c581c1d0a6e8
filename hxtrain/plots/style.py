"""Common parts of the plots: colours, figures without global state, panels, files written in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hxtrain.backends.files import replacing

if TYPE_CHECKING:  # it takes longer to import than all the rest, and many commands draw nothing
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 120
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
GREY = "#9A9A9A"
"""Colours of Okabe and Ito, which colour-blind readers can tell apart; grey is for the background."""
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of curves, in turn."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure (inches) that fits its contents without overlap, and that notebooks show."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure: Figure = _notebook_figure()(figsize=(width, height), facecolor="white", layout=engine)
    return figure


@cache
def _notebook_figure() -> type[Figure]:
    """Return the class of figures that notebooks show without pyplot, which alone tells them how to show a figure."""
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            """Return the figure as a PNG."""
            content = BytesIO()
            self.savefig(content, format="png", dpi=DPI)
            return content.getvalue()

    return NotebookFigure


def verbatim(*texts: Text) -> None:
    """Show texts as they are: matplotlib would read formulas between the dollars of names, and fail over halves."""
    for text in texts:
        text.set_parse_math(False)


def array(tensor: Tensor) -> NDArray[np.float64]:
    """Return a tensor of any device and type as an array of the same shape."""
    values: NDArray[np.float64] = tensor.detach().to("cpu", torch.float64).numpy()
    return values


def integer_ticks(*axes: Axis) -> None:
    """Put ticks at few round integers, at least one."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def draw_curve(
    axes: Axes,
    records: Sequence[Mapping[str, float]],
    key: str,
    colour: str,
    name: str,
    factor: float,
    form: str,
) -> None:
    """Draw `factor * record[key]` over `epoch` for the records that have the key; the legend shows the last value."""
    points = [(r["epoch"], factor * r[key]) for r in records if r.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        label = f"{name}, last {form.format(values[-1])}"
        size = 4.0 if len(points) <= 60 else 0.0
        axes.plot(epochs, values, marker="o", markersize=size, color=colour, linewidth=1.6, label=label)


def draw_values(axes: Axes, sample: Tensor | None) -> None:
    """Draw an image `[H, W]` dark on white, or features `[F]` as bars over 0..1; None draws nothing."""
    if sample is not None and sample.ndim == 1:
        axes.barh(np.arange(len(sample)), array(sample), color=GREY)
        axes.set(xlim=(0, 1), ylabel="feature")
        integer_ticks(axes.yaxis)
        return
    axes.set_axis_off()
    if sample is not None:
        values = array(sample)
        axes.imshow(values, cmap="gray_r", vmin=0, vmax=float(values.max(initial=0.0)) or 1.0)


def draw_raster(axes: Axes, times: Tensor, units: Tensor, count: int) -> None:
    """Draw spikes `[E]` (s) of `count` units over time (us)."""
    marker, size = ("|", 8.0) if count <= 32 else (".", 3.5)
    axes.plot(array(times) * 1e6, array(units), marker, markersize=size, color="black")
    axes.set_ylim(-0.02 * count - 0.5, 1.02 * count - 0.5)
    integer_ticks(axes.yaxis)
    if not times.numel():
        axes.text(0.5, 0.5, "no spikes", transform=axes.transAxes, ha="center", va="center", color="dimgrey")


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG to `path` in one step: readers see the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI)
    return path
