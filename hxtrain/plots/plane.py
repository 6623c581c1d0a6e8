"""Figure of two-dimensional data: the plane, coloured by a network's answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from . import style as style
from .style import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (BLUE, "#E69F00", GREEN, VERMILLION, "#56B4E9", "#CC79A7", "#F0E442", GREY)
"""Colours of the classes (Okabe and Ito)."""


def plane_figure(answers: Tensor, regions: Tensor, classes: Sequence[str]) -> Figure:
    """Draw a grid of points in the unit square, coloured by answer, and the outlines of the true regions.

    Args:
        answers: class of each point `[S S]`, row by row (y, then x ascending); -1 for a point without a class.
        regions: true class of each point `[S S]`, in the same order.
        classes: names of the classes, eight at most.

    Raises:
        ValueError: the grid is not square, or there are too many classes.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    side = math.isqrt(len(regions))
    if not side or answers.shape != regions.shape or side**2 != len(regions):
        raise ValueError(f"{len(answers)} answers and {len(regions)} true classes are not those of a square grid")
    if len(classes) > len(COLOURS):
        raise ValueError(f"{len(classes)} classes are more than the {len(COLOURS)} colours of a plane")
    predicted, true = (style.array(values).reshape(side, side) for values in (answers, regions))
    has_class = true >= 0
    figure = style.new_figure(5.6, 4.4)
    axes = figure.subplots()
    image = np.ma.masked_where(predicted < 0, predicted)
    colours = ListedColormap(COLOURS[: len(classes)])
    axes.imshow(image, cmap=colours, vmin=-0.5, vmax=len(classes) - 0.5, origin="lower", extent=(0, 1, 0, 1))
    centres = (np.arange(side) + 0.5) / side
    for index in range(len(classes)):
        axes.contour(centres, centres, true == index, levels=[0.5], colors="black", linewidths=1.0)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
    share = 100 * float(np.mean(predicted[has_class] == true[has_class])) if has_class.any() else math.nan
    axes.set_title(f"{share:.2f} % of {int(has_class.sum())} points right", fontsize=11)
    handles = [Patch(color=colour, label=name) for colour, name in zip(COLOURS, classes, strict=False)]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return figure
