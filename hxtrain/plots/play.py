"""Plots of play: reward over epochs, and games as a strip and as an animation.

A view of Pong is `[moves, B, 3]`: ball (x and y in 0..1) and centre of the paddle (0..1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hxtrain.backends.files import replacing

from . import style
from .style import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SMOOTHING = 10
"""Epochs of the moving mean in the plot of rewards."""
STRIP_GAMES = 4
STRIP_FRAMES = 8
FRAMES_PER_SECOND = 25
MOST_FRAMES = 300
"""Frames of an animation; later moves are left out."""


def plot_rewards(records: Sequence[Mapping[str, Any]], best: float | None, path: str | Path) -> Path:
    """Write `rewards_figure(records, best)` to `path`, a PNG, and return `path`."""
    return style.save(rewards_figure(records, best), path)


def plot_games(views: Tensor, paddle: float, path: str | Path) -> Path:
    """Write `games_figure(views, paddle)` to `path`, a PNG, and return `path`."""
    return style.save(games_figure(views, paddle), path)


def rewards_figure(records: Sequence[Mapping[str, Any]], best: float | None) -> Figure:
    """Draw the score of actions, the share of hits, and the output spikes of a trial over epochs.

    Args:
        records: Mappings, one per epoch, with `epoch`, `score`, `success` (or None) and `output_spikes_per_trial`.
        best: Largest score; None: there is none.

    Raises:
        ValueError: There are no records.
    """
    if not records:
        raise ValueError("no epochs to plot; give at least one record")
    figure = style.new_figure(12, 3.6)
    panels = figure.subplots(1, 3)
    rows = (("score", "mean reward of an action", BLUE), ("success", "share of hits", VERMILLION))
    for axes, (key, name, colour) in zip(
        panels, (*rows, ("output_spikes_per_trial", "output spikes per trial", GREEN)), strict=True
    ):
        points = [(record["epoch"], record[key]) for record in records if record[key] is not None]
        if points:
            epochs, values = np.array(points, dtype=float).T
            axes.plot(epochs, values, color=GREY, linewidth=0.6)
            axes.plot(epochs, _smooth(values), color=colour, linewidth=1.8, label=f"last {_smooth(values)[-1]:.2f}")
            axes.legend()
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        style.integer_ticks(axes.xaxis)
    if best is not None:
        panels[0].axhline(best, color="black", linewidth=0.6, linestyle="--")
    panels[1].set_ylim(-0.02, 1.02)
    return figure


def _smooth(values: Any) -> Any:
    """Return the mean of each value and those up to `SMOOTHING` - 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - SMOOTHING, 0)
    return (sums[last] - sums[first]) / (last - first)


def games_figure(views: Tensor, paddle: float) -> Figure:
    """Draw games: courts of the first one in a row, and below them heights of ball and paddle over the moves.

    Args:
        views: Ball and paddle of each move `[moves, B, 3]`.
        paddle: Half the height of the paddle (0..1).
    """
    frames = style.array(views)
    count = min(STRIP_GAMES, frames.shape[1])
    figure = style.new_figure(12, 1.8 + 1.6 * count)
    grid = figure.add_gridspec(count + 1, STRIP_FRAMES)
    for column, move in enumerate(np.linspace(0, len(frames) - 1, STRIP_FRAMES).astype(int)):
        axes = figure.add_subplot(grid[0, column])
        _draw_court(axes, frames[move, 0], paddle)
        axes.set_title(f"move {move}", fontsize=8)
    for game in range(count):
        axes = figure.add_subplot(grid[game + 1, :])
        moves = np.arange(len(frames))
        axes.plot(moves, frames[:, game, 1], color=VERMILLION, linewidth=1.4, label="ball")
        axes.fill_between(
            moves,
            frames[:, game, 2] - paddle,
            frames[:, game, 2] + paddle,
            color=BLUE,
            alpha=0.35,
            label="paddle",
            step="mid",
        )
        axes.set(ylim=(0, 1), xlim=(0, len(frames) - 1), ylabel=f"game {game + 1}")
        if game == 0:
            axes.legend(loc="upper right", ncols=2)
    axes.set_xlabel("move")
    return figure


def animate_games(views: Tensor, paddle: float, path: str | Path) -> Path:
    """Write an animation of the first game to `path`, a GIF, and return `path`; arguments as in `games_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    frames = style.array(views)[:MOST_FRAMES, 0]
    figure = style.new_figure(4, 2.6)
    canvas: Any = FigureCanvasAgg(figure)
    ball, racket = _draw_court(figure.add_subplot(), frames[0], paddle)
    images = []
    for x, y, centre in frames:
        ball.set_data([x], [y])
        racket.set_ydata([centre - paddle, centre + paddle])
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        images.append(picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=16))
    path = Path(path)
    with replacing(path) as file:
        images[0].save(
            file, format="GIF", save_all=True, append_images=images[1:], duration=1000 // FRAMES_PER_SECOND, loop=0
        )
    return path


def _draw_court(axes: Axes, frame: Any, paddle: float) -> tuple[Line2D, Line2D]:
    """Draw a court; returns ball and paddle."""
    x, y, centre = frame
    (ball,) = axes.plot([x], [y], "o", color=VERMILLION, markersize=5)
    edges = [centre - paddle, centre + paddle]
    (racket,) = axes.plot([1.0, 1.0], edges, color=BLUE, linewidth=4, solid_capstyle="butt")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[], yticks=[])
    return ball, racket
