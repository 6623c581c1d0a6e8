"""Plots of a training run (learning curves, samples, weights, confusions, a classified plane) and of a comparison.

`*_figure` builds a figure without touching files or global state; `plot_*` writes it as a PNG.
Lines use the colours of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import style as style
from .comparison import comparison_figure
from .plane import plane_figure
from .style import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from hxtrain.comparison import Comparison

MAX_SAMPLES = 4
"""Number of rows of `plot_samples`; further samples are left out."""
MAX_LABELLED_CLASSES = 30
"""Number of classes above which the cells of a confusion matrix show no counts."""


@dataclass(frozen=True, eq=False)
class SampleView:
    """Activity of the network for one sample; `T` time steps, `E` input and `S` hidden spikes.

    Attributes:
        values: values of the sample in 0..1, an image `[H, W]` or features `[F]`; None draws no values.
        input_times: times of the input spikes `[E]` (s).
        input_units: indices of the inputs that spike `[E]`.
        hidden_times: times of the hidden spikes `[S]` (s).
        hidden_units: indices of the hidden neurons that spike `[S]`.
        measured: readout membranes of the device `[T, classes]` (leak 0, threshold 1); row k is at time `k * dt`. None
            if the output spikes.
        modelled: readout membranes of the twin `[T, classes]`, likewise.
        dt: time between two rows of membranes (s).
        label: true class.
        prediction: predicted class.
        inputs: number of inputs.
        hidden: number of hidden neurons; 0 for a network without any.
        output: times (s) and units of the spikes of a spiking output; None for a readout.
        classes: number of output neurons.
        window: recorded time (s); it matters for a spiking output, which has no membranes here.
    """

    values: Tensor | None
    input_times: Tensor
    input_units: Tensor
    hidden_times: Tensor
    hidden_units: Tensor
    measured: Tensor | None
    modelled: Tensor | None
    dt: float
    label: int
    prediction: int
    inputs: int
    hidden: int
    output: tuple[Tensor, Tensor] | None = None
    classes: int = 0
    window: float = 0.0

    @property
    def end(self) -> float:
        """End of the recorded window or of the last spike (s)."""
        times = [self.input_times, self.hidden_times, *([] if self.output is None else [self.output[0]])]
        spikes = torch.cat([part.cpu().double() for part in times])
        window = self.window if self.measured is None else len(self.measured) * self.dt
        return max(window, float(spikes.max()) if spikes.numel() else 0.0)


def plot_learning_curves(records: Sequence[Mapping[str, float]], path: str | Path, evaluated_on: str = "test") -> Path:
    """Write `learning_curves_figure(records, evaluated_on)` to `path`, a PNG, and return `path`."""
    return style.save(learning_curves_figure(records, evaluated_on), path)


def plot_samples(samples: Sequence[SampleView], path: str | Path) -> Path:
    """Write `samples_figure(samples)` to `path`, a PNG, and return `path`."""
    return style.save(samples_figure(samples), path)


def plot_weights(weights: Mapping[str, Tensor], path: str | Path, weight_max: int) -> Path:
    """Write `weights_figure(weights, weight_max)` to `path`, a PNG, and return `path`."""
    return style.save(weights_figure(weights, weight_max), path)


def plot_confusion(matrix: Tensor, classes: Sequence[str], path: str | Path) -> Path:
    """Write `confusion_figure(matrix, classes)` to `path`, a PNG, and return `path`."""
    return style.save(confusion_figure(matrix, classes), path)


def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write `comparison_figure(comparison)` to `path`, a PNG, and return `path`."""
    return style.save(comparison_figure(comparison), path)


def plot_plane(answers: Tensor, regions: Tensor, classes: Sequence[str], path: str | Path) -> Path:
    """Write `plane_figure(answers, regions, classes)` to `path`, a PNG, and return `path`."""
    return style.save(plane_figure(answers, regions, classes), path)


def learning_curves_figure(records: Sequence[Mapping[str, float]], evaluated_on: str = "test") -> Figure:
    """Draw loss, accuracy (percent) and hidden spikes per sample over epochs.

    Args:
        records: mappings, one per epoch, with `epoch` (from 1), `train_loss`, `train_accuracy` and `test_accuracy`
            (fractions 0..1), `hidden_spikes_per_sample`; a missing value is not drawn.
        evaluated_on: kind of the samples that `test_accuracy` is of, `test` or `validation`.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("no epochs to plot; give at least one record")
    figure = style.new_figure(12, 3.6)
    loss, accuracy, spikes = figure.subplots(1, 3)
    style.draw_curve(loss, records, "train_loss", BLUE, "train", 1.0, "{:.3g}")
    style.draw_curve(accuracy, records, "train_accuracy", BLUE, "train", 100.0, "{:.2f} %")
    style.draw_curve(accuracy, records, "test_accuracy", VERMILLION, evaluated_on, 100.0, "{:.2f} %")
    style.draw_curve(spikes, records, "hidden_spikes_per_sample", GREEN, "mean", 1.0, "{:.1f}")
    for axes, name in ((loss, "loss"), (accuracy, "accuracy (%)"), (spikes, "hidden spikes per sample")):
        axes.set(xlabel="epoch", ylabel=name)
        style.integer_ticks(axes.xaxis)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    for axes in (loss, spikes):
        if axes.dataLim.y0 >= 0:
            axes.set_ylim(bottom=0)
    accuracy.set_ylim(top=min(accuracy.get_ylim()[1], 101.0))
    return figure


def samples_figure(samples: Sequence[SampleView]) -> Figure:
    """Draw up to four samples, one per row: values (if a sample has some), input and hidden spikes, readout.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples to plot; give at least one")
    samples = samples[:MAX_SAMPLES]
    has_values = any(sample.values is not None for sample in samples)
    has_hidden = any(sample.hidden for sample in samples)
    rasters = 2 if has_hidden else 1
    widths = ([1.0] if has_values else []) + [1.5] * rasters + [2.0]
    figure = style.new_figure(2.1 * sum(widths) + 1.5, 2.6 * len(samples) + 0.4)
    grid = figure.subplots(len(samples), len(widths), squeeze=False, width_ratios=widths)
    for row, sample in zip(grid, samples, strict=True):
        if has_values:
            style.draw_values(row[0], sample.values)
        inputs, *hidden, output = row[-rasters - 1 :]
        style.draw_raster(inputs, sample.input_times, sample.input_units, sample.inputs)
        for axes in hidden:
            style.draw_raster(axes, sample.hidden_times, sample.hidden_units, sample.hidden)
            axes.set_ylabel("hidden neuron")
        if sample.output is None:
            _draw_readout(output, sample)
        else:
            _draw_output_spikes(output, sample, *sample.output)
        inputs.set_ylabel("input")
        for axes in (inputs, *hidden, output):
            axes.set_xlim(-0.02e6 * sample.end, 1e6 * sample.end)
        colour = "black" if sample.prediction == sample.label else VERMILLION
        verdict = f"label {sample.label}, predicted {sample.prediction}"
        row[0].set_title(verdict, fontweight="bold", fontsize=11, loc="left", color=colour)
    for axes in grid[-1, -rasters - 1 :]:
        axes.set_xlabel("time (µs)")
    return figure


def weights_figure(weights: Mapping[str, Tensor], weight_max: int) -> Figure:
    """Draw the integer weights of each projection as a matrix and as a histogram.

    Args:
        weights: integer weights on the device `[post, pre]`, by name of the projection.
        weight_max: largest magnitude of a weight on the device (LSB).

    Raises:
        ValueError: there are no projections, or a weight exceeds the limit.
    """
    if not weights:
        raise ValueError("no weights to plot; give at least one projection")
    figure = style.new_figure(11, 3.4 * len(weights))
    grid = figure.subplots(len(weights), 2, squeeze=False, width_ratios=[1.25, 1.0])
    for (name, tensor), (matrix, histogram) in zip(weights.items(), grid, strict=True):
        values = style.array(tensor)
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= weight_max:
            raise ValueError(f"{name} has a weight of magnitude {largest:g}, the device's limit is {weight_max}")
        image = matrix.imshow(
            values, cmap="RdBu_r", vmin=-weight_max, vmax=weight_max, aspect="auto", interpolation="nearest"
        )
        figure.colorbar(image, ax=matrix, label="weight (LSB)")
        matrix.set(xlabel="source (pre)", ylabel="target (post)")
        matrix.set_title(f"{name}: {values.shape[0]} × {values.shape[1]} synapses", fontsize=11)
        style.integer_ticks(matrix.xaxis, matrix.yaxis)
        _draw_histogram(histogram, values, weight_max)
    return figure


def confusion_figure(matrix: Tensor, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: colours are shares of the true class, numbers are counts.

    Args:
        matrix: counts `[C, C]`, rows true, columns predicted.
        classes: names of the `C` classes.

    Raises:
        ValueError: the matrix is not square, or the number of names differs.
    """
    size = len(classes)
    if tuple(matrix.shape) != (size, size) or not size:
        raise ValueError(f"confusion matrix has shape {list(matrix.shape)}, {size} classes need [{size}, {size}]")
    counts = style.array(matrix)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(0.52 * size + 1.6, 4.2), 14.0)
    figure = style.new_figure(side + 1.0, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.85)
    axes.set_xticks(range(size), list(classes))
    axes.set_yticks(range(size), list(classes))
    style.verbatim(*axes.get_xticklabels(), *axes.get_yticklabels())
    if max(map(len, classes)) > 3:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="predicted class", ylabel="true class")
    right = int(np.trace(counts))
    total = int(counts.sum())
    axes.set_title(f"accuracy {100 * right / total:.2f} % ({right} of {total})" if total else "no samples")
    if size <= MAX_LABELLED_CLASSES:
        for (y, x), count in np.ndenumerate(counts):
            colour = "white" if share[y, x] > 55 else "black" if count else "dimgrey"
            axes.text(x, y, f"{count:.0f}", ha="center", va="center", fontsize=9, color=colour)
    return figure


def _draw_readout(axes: Axes, sample: SampleView) -> None:
    """Draw the readout's membranes: the true class on top, a wrong prediction below it."""
    from matplotlib.lines import Line2D

    looks = {sample.prediction: (VERMILLION, 1.4, 3), sample.label: (BLUE, 1.8, 4)}
    for traces, dashes, wider, alpha in ((sample.measured, "-", 1.0, 0.5), (sample.modelled, "--", 0.0, 1.0)):
        if traces is None:
            continue
        times = np.arange(len(traces)) * sample.dt * 1e6
        for index, trace in enumerate(style.array(traces).T):
            colour, width, order = looks.get(index, (GREY, 0.7, 2))
            axes.plot(times, trace, dashes, color=colour, linewidth=width + wider, alpha=alpha, zorder=order)
    handles = _class_handles(sample)
    handles.append(Line2D([], [], color="black", linewidth=2.4, alpha=0.5, label="measured"))
    handles.append(Line2D([], [], color="black", linewidth=1.4, linestyle="--", label="modelled"))
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    axes.set_ylabel("readout membrane\n(threshold = 1)")
    axes.grid(alpha=0.3)


def _draw_output_spikes(axes: Axes, sample: SampleView, times: Tensor, units: Tensor) -> None:
    """Draw the spikes of a spiking output, in the colours of `_draw_readout`."""
    looks = {sample.prediction: VERMILLION, sample.label: BLUE}
    colours = [looks.get(int(unit), GREY) for unit in units]
    axes.scatter(1e6 * style.array(times), style.array(units), marker="|", s=120, linewidths=2.0, c=colours)
    axes.set_ylim(-0.5, sample.classes - 0.5)
    style.integer_ticks(axes.yaxis)
    axes.legend(handles=_class_handles(sample), loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    axes.set_ylabel("output neuron")
    axes.grid(alpha=0.3)


def _class_handles(sample: SampleView) -> list[Line2D]:
    """Return the legend's entries of the true class, of a wrong prediction, and of all other classes."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=BLUE, linewidth=2.0, label=f"class {sample.label} (true)")]
    if sample.prediction != sample.label:
        name = f"class {sample.prediction} (predicted)"
        handles.append(Line2D([], [], color=VERMILLION, linewidth=1.6, label=name))
    handles.append(Line2D([], [], color=GREY, linewidth=0.8, label="other classes"))
    return handles


def _draw_histogram(axes: Axes, values: NDArray[np.float64], weight_max: int) -> None:
    """Draw the histogram of integer weights `[post, pre]`, one bar per LSB; a colour marks the limits."""
    edges = np.arange(-weight_max, weight_max + 2) - 0.5
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=BLUE)
    at_limit = np.where(np.abs(edges[:-1] + 0.5) == weight_max, counts, 0)
    axes.stairs(at_limit, edges, fill=True, color=VERMILLION)
    limit, zero = (100 * float(np.mean(hit)) for hit in (np.abs(values) == weight_max, values == 0))
    axes.set_title(f"{limit:.1f} % at the limit ±{weight_max}, {zero:.1f} % zero", fontsize=11)
    axes.set(xlabel="weight (LSB)", ylabel="synapses")
    axes.set_xlim(-1.04 * weight_max - 0.5, 1.04 * weight_max + 0.5)
    style.integer_ticks(axes.yaxis)


def transfer_figure(accuracy: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return a matrix of accuracies `accuracy[trained][evaluated]`; the cells hold percent.

    Raises:
        ValueError: There are no accuracies.
    """
    if not accuracy or not all(accuracy.values()):
        raise ValueError("no accuracies to plot; give at least one, such as {'W66F3': {'W62F0': 0.9}}")
    rows = list(accuracy)
    columns = list(next(iter(accuracy.values())))
    values = np.array([[100 * accuracy[row][column] for column in columns] for row in rows])
    figure = style.new_figure(1.8 + 0.75 * len(columns), 1.4 + 0.42 * len(rows))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("evaluated on")
    axes.set_ylabel("trained on")
    middle = (values.min() + values.max()) / 2
    for (i, j), value in np.ndenumerate(values):
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="white" if value < middle else "black", size=8)
    figure.colorbar(image, ax=axes, label="test accuracy (%)")
    return figure


def plot_transfer(accuracy: Mapping[str, Mapping[str, float]], path: str | Path) -> None:
    """Write `transfer_figure(accuracy)` to `path`, a PNG."""
    style.save(transfer_figure(accuracy), path)
