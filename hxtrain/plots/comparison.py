"""The figure of a comparison: one row per layer, blue for the first target, vermillion for the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from . import style as style
from .style import BLUE, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hxtrain.comparison import Comparison, LayerComparison

MIN_ENERGY = 0.1
"""Share of the mean energy of modelled membranes below which a neuron's gain is not drawn."""


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw where two targets differ.

    Each layer has a row: mean spikes of each neuron on both targets, differences of first-spike times, gain of each
    neuron on both targets, and membranes of one neuron in one sample whose difference is close to the median. In the
    readout's row the cosines of the gradients take the place of spikes; if the output spikes, they have a last row.
    Grey marks a repetition on one target.
    """
    has_readout = any(layer.rates is None for layer in comparison.layers)
    rows = len(comparison.layers) + (not has_readout)
    figure = style.new_figure(15, 3.1 * rows + 0.5)
    figure.suptitle(comparison.verdict, fontsize=10, wrap=True)
    grid = figure.add_gridspec(rows, 4, width_ratios=[1.0, 1.2, 1.0, 1.5])
    for row, layer in enumerate(comparison.layers):
        if layer.rates is None:
            _draw_cosines(figure.add_subplot(grid[row, :2]), comparison)
        else:
            _draw_pairs(figure.add_subplot(grid[row, 0]), layer.name, *layer.rates, "spikes per sample")
            _draw_first_spikes(figure.add_subplot(grid[row, 1]), layer)
        masks = [r.energy > MIN_ENERGY * r.energy.mean() for r in layer.responses]
        mask = masks[0] & masks[1]
        first, second = (r.gains[mask] for r in layer.responses)
        _draw_pairs(figure.add_subplot(grid[row, 2]), layer.name, first, second, "own gain")
        _draw_example(figure.add_subplot(grid[row, 3]), layer, comparison.dt)
    if not has_readout:
        _draw_cosines(figure.add_subplot(grid[rows - 1, :2]), comparison)
    return figure


def _draw_pairs(axes: Axes, layer: str, first: Tensor, second: Tensor, name: str) -> None:
    """Draw a quantity of each neuron: the value on the second target over the value on the first."""
    x, y = style.array(first), style.array(second)
    axes.plot(x, y, "o", markersize=3.0, alpha=0.6, color=BLUE, markeredgewidth=0)
    low, high = (float(f(np.concatenate([x, y]))) if x.size else 0.0 for f in (np.min, np.max))
    axes.axline((low, low), (high + 1e-9, high + 1e-9), color=GREY, linewidth=1.0, zorder=0)
    axes.set(xlabel=f"{name}, first", ylabel=f"{name}, second", title=f"{layer}, {len(x)} neurons")
    axes.grid(alpha=0.3)


def _draw_first_spikes(axes: Axes, layer: LayerComparison) -> None:
    """Draw the histograms of first-spike-time differences: between the targets, and in the repetition."""
    differences = [style.array(d.first_spikes) * 1e6 for d in (layer.repeat, layer.between)]
    widest = max((float(np.quantile(np.abs(t), 0.99)) for t in differences if t.size), default=0.0)
    edges = np.linspace(-1, 1, 42) * max(widest, 0.1)
    for times, colour, fill, name in zip(
        differences, (GREY, BLUE), (True, False), ("repeated", "second - first"), strict=True
    ):
        counts, _ = np.histogram(np.clip(times, edges[0], edges[-1]), edges)
        axes.stairs(counts, edges, fill=fill, color=colour, linewidth=1.6, label=name)
    axes.set(xlabel="first spike, difference (µs)", ylabel="neurons and samples", title=layer.name)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _draw_cosines(axes: Axes, comparison: Comparison) -> None:
    """Draw the cosine of each projection's gradients; one that is not defined has no bar."""
    names = list(comparison.gradients)
    places = np.arange(len(names))
    for shift, colour, pair in ((-0.2, BLUE, "between"), (0.2, GREY, "repeat")):
        values = [getattr(comparison.gradients[name], pair) for name in names]
        label = "second and first" if pair == "between" else "repeated"
        axes.barh(places + shift, [v or 0.0 for v in values], height=0.38, color=colour, label=label)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlabel="cosine of the gradients", xlim=(min(0.0, *_cosines(comparison)) - 0.02, 1.02))
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False)
    axes.grid(alpha=0.3, axis="x")


def _cosines(comparison: Comparison) -> list[float]:
    return [0.0, *(value for pair in comparison.gradients.values() for value in pair if value is not None)]


def _draw_example(axes: Axes, layer: LayerComparison, dt: float) -> None:
    """Draw the membranes of the layer's example."""
    example = layer.example
    times = np.arange(len(example.first)) * dt * 1e6
    curves = (
        (example.repeat, GREY, "repeated"),
        (example.first, BLUE, "first"),
        (example.second, VERMILLION, "second"),
    )
    for trace, colour, name in curves:
        axes.plot(times, style.array(trace), "o-", markersize=2.5, color=colour, linewidth=1.5, label=name)
    if layer.rates is not None:
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="time (µs)", ylabel="membrane (threshold = 1)")
    axes.set_title(f"{layer.name}, neuron {example.neuron}, sample {example.sample}")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
