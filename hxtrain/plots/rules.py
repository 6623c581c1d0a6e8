"""Figures of learning rules: weights as images, output spikes beside target trains, learning windows, rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from . import style as style
from .style import BLUE, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FIELDS = 64
"""Number of neurons of `fields_figure`; further neurons are left out."""
MOST_TRAINS = 6
"""Number of samples of `trains_figure`; further ones are left out."""
RUNNING = 20
"""Number of episodes of the running mean of `reward_figure`."""


@dataclass(frozen=True, eq=False)
class TrainView:
    """Output spikes of a sample beside the target train of its class; `S` output spikes and `D` target spikes.

    Attributes:
        title: Name of the class.
        times: Times of the output spikes `[S]` (s).
        units: Output neurons that spike `[S]`.
        target_times: Times of the target spikes `[D]` (s).
        target_units: Output neurons that should spike `[D]`.
        neurons: Number of output neurons.
        window: Recorded time (s).
    """

    title: str
    times: Tensor
    units: Tensor
    target_times: Tensor
    target_units: Tensor
    neurons: int
    window: float


def fields_figure(weights: Tensor, side: tuple[int, int]) -> Figure:
    """Draw the weights of each neuron as an image of the inputs, the first `MOST_FIELDS` neurons.

    Args:
        weights: Weights `[post, pre]`.
        side: Height and width of the images, whose product is the number of inputs.

    Raises:
        ValueError: The number of inputs is not that of the pixels, or there are no neurons.
    """
    neurons, inputs = weights.shape
    if inputs != math.prod(side) or not neurons:
        raise ValueError(f"weights {[neurons, inputs]} are no images of {side[0]} x {side[1]} inputs")
    count = min(neurons, MOST_FIELDS)
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    values = style.array(weights[:count])
    tiles = np.full((lines * (side[0] + 1) + 1, columns * (side[1] + 1) + 1), np.nan)
    for index, field in enumerate(values):
        y = 1 + (index // columns) * (side[0] + 1)
        x = 1 + (index % columns) * (side[1] + 1)
        tiles[y : y + side[0], x : x + side[1]] = field.reshape(side)
    largest = float(np.abs(values).max()) or 1.0
    figure = style.new_figure(6.4, 0.8 + 5.2 * tiles.shape[0] / tiles.shape[1])
    axes = figure.subplots()
    axes.set_axis_off()
    image = axes.imshow(tiles, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="weight", shrink=0.8)
    axes.set_title(f"weights of {count} of {neurons} neurons" if count < neurons else f"weights of {neurons} neurons")
    return figure


def trains_figure(views: Sequence[TrainView]) -> Figure:
    """Draw output spikes as lines and target spikes as open circles, a panel per sample, up to `MOST_TRAINS`.

    Raises:
        ValueError: There are no samples.
    """
    if not views:
        raise ValueError("no samples to plot; give at least one")
    views = views[:MOST_TRAINS]
    heights = [0.9 + 0.22 * min(view.neurons, 12) for view in views]
    figure = style.new_figure(7.5, 0.6 + sum(heights))
    panels = figure.subplots(len(views), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, view in zip(panels, views, strict=True):
        targets = 1e6 * style.array(view.target_times)
        axes.scatter(targets, style.array(view.target_units), s=45, color=VERMILLION, facecolors="none", label="target")
        times = 1e6 * style.array(view.times)
        axes.scatter(times, style.array(view.units), marker="|", s=90, color=BLUE, label="output")
        axes.set_ylim(-0.5, view.neurons - 0.5)
        axes.set_xlim(0, 1e6 * view.window)
        axes.set_ylabel("output neuron")
        axes.set_title(view.title, fontsize=10, loc="left")
        style.integer_ticks(axes.yaxis)
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    panels[-1].set_xlabel("time (µs)")
    return figure


def window_figure(delays: Tensor, changes: Tensor) -> Figure:
    """Draw a learning window.

    Args:
        delays: Time of the neuron's spike less that of the input's `[D]` (s).
        changes: Change of the weight by the pair `[D]`.
    """
    figure = style.new_figure(5.6, 3.8)
    axes = figure.subplots()
    times = 1e6 * style.array(delays)
    values = style.array(changes)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for selection, colour in ((times >= 0, BLUE), (times < 0, VERMILLION)):
        axes.plot(times[selection], values[selection], marker="o", markersize=3, linewidth=1.2, color=colour)
    axes.set(xlabel="delay, neuron after input (µs)", ylabel="change of the weight at learning rate 1")
    axes.set_title("learning window, measured in software", fontsize=11)
    axes.grid(alpha=0.3)
    return figure


def reward_figure(rewards: Sequence[float], unit: str = "epoch") -> Figure:
    """Draw rewards in their order, with a running mean if there are more than `RUNNING`.

    Args:
        rewards: Mean reward of each epoch or episode.
        unit: What the rewards are of.

    Raises:
        ValueError: There are no rewards.
    """
    if not len(rewards):
        raise ValueError("no rewards to plot; give at least one")
    values = np.asarray(rewards, dtype=float)
    numbers = np.arange(1, len(values) + 1)
    figure = style.new_figure(5.6, 3.6)
    axes = figure.subplots()
    is_long = len(values) > RUNNING
    marker = "" if is_long else "o"
    axes.plot(numbers, values, marker=marker, color=GREY if is_long else BLUE, linewidth=1.0, label=unit)
    if is_long:
        means = np.convolve(values, np.full(RUNNING, 1 / RUNNING), mode="valid")
        label = f"mean of {RUNNING}, last {means[-1]:.3g}"
        axes.plot(numbers[RUNNING - 1 :], means, color=BLUE, linewidth=1.8, label=label)
        axes.legend(frameon=False)
    axes.set(xlabel=unit, ylabel="mean reward")
    style.integer_ticks(axes.xaxis)
    axes.grid(alpha=0.3)
    return figure
