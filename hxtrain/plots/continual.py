"""Accuracies of a sequence of tasks: the matrix after each task, and their course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELLED = 12
"""Number of tasks above which the cells of the matrix show no numbers."""


def tasks_figure(rows: Sequence[Sequence[float]], evaluated_on: str = "test") -> Figure:
    """Draw the accuracies of tasks after each task: as a matrix, and as curves with their mean.

    Args:
        rows: Row i has the accuracies (0..1) of tasks 0 to i after task i; a single row of joint training.
        evaluated_on: Kind of the samples, `test` or `validation`.
    """
    count = len(rows[-1])
    matrix = np.full((len(rows), count), np.nan)
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    figure = style.new_figure(4 + 0.45 * count + 4, max(3.2, 1.6 + 0.3 * len(rows)))
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, matrix, evaluated_on)
    _draw_curves(right, matrix, evaluated_on)
    return figure


def _draw_matrix(axes: Axes, matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]], evaluated_on: str) -> None:
    axes.imshow(matrix, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="task", ylabel="after task", title=f"{evaluated_on} accuracy (%)")
    axes.set_xticks(range(matrix.shape[1]), [str(task + 1) for task in range(matrix.shape[1])])
    names = ["all"] if len(matrix) == 1 else [str(task + 1) for task in range(len(matrix))]
    axes.set_yticks(range(len(matrix)), names)
    if matrix.shape[1] > MOST_LABELLED:
        return
    for row, column in np.argwhere(~np.isnan(matrix)):
        value = matrix[row, column]
        colour = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8)


def _draw_curves(axes: Axes, matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]], evaluated_on: str) -> None:
    if len(matrix) == 1:
        axes.bar(np.arange(matrix.shape[1]) + 1, 100 * matrix[0], color=style.GREY)
        axes.axhline(100 * float(matrix[0].mean()), color=style.VERMILLION, label="mean")
        axes.set_xlabel("task")
    else:
        places = np.arange(len(matrix)) + 1
        for task in range(matrix.shape[1]):
            axes.plot(places[task:], 100 * matrix[task:, task], color=style.GREY, marker=".", linewidth=1)
        axes.plot(places, 100 * np.nanmean(matrix, axis=1), color=style.VERMILLION, marker="o", label="mean so far")
        axes.set_xlabel("after task")
        style.integer_ticks(axes.xaxis)
    axes.set(ylabel=f"{evaluated_on} accuracy (%)", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
