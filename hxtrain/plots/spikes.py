"""Figures of a pass: rasters of spikes, still and moving, membranes as measured and as modelled, rates of neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hxtrain.network import Activity, Network
from hxtrain.network.firing import NeuronFiring, neuron_firing, spike_limit
from hxtrain.network.samples import Membranes, PassSample, Train, pass_sample

from . import style
from .style import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORDERS = ("first_spike", "unit")
"""Orders of the neurons of a raster."""
SHOWN_NEURONS = 6
"""Number of neurons whose membranes are drawn, unless they are named."""


def raster_figure(net: Network, activity: Activity, sample: int = 0, order: str = "first_spike") -> Figure:
    """Draw the spikes of the input and of each spiking layer over time, in one sample.

    Args:
        net: Network of the pass.
        activity: Result of the pass, `net(spikes)`.
        sample: Index of the sample in the batch.
        order: Order of the neurons from bottom to top, `first_spike` (silent ones on top) or `unit`.

    Raises:
        ValueError: The order is not known, or the sample does not exist.
    """
    views = pass_sample(net, activity, sample)
    figure, panels = _raster_panels(views)
    for axes, train in zip(panels, views.trains, strict=True):
        style.draw_raster(axes, train.times, _places(train, order), train.size)
        _label_raster(axes, train, order)
    _finish_raster(panels, views)
    return figure


def raster_animation(
    net: Network, activity: Activity, sample: int = 0, order: str = "first_spike", frames: int = 60
) -> FuncAnimation:
    """Draw the raster of a sample as a film: spikes appear in the order of their times.

    `animation.to_jshtml()` shows it in a notebook, `animation.save("raster.gif")` writes it.

    Args:
        net: Network of the pass.
        activity: Result of the pass.
        sample: Index of the sample in the batch.
        order: Order of the neurons, see `raster_figure`.
        frames: Number of pictures, which divide the recorded window.

    Raises:
        ValueError: The order is not known, the sample does not exist, or there are no frames.
    """
    from matplotlib.animation import FuncAnimation
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if frames < 1:
        raise ValueError(f"frames={frames} must be at least 1")
    views = pass_sample(net, activity, sample)
    figure, panels = _raster_panels(views)
    FigureCanvasAgg(figure)
    places = [_places(train, order) for train in views.trains]
    artists = []
    for axes, train, units in zip(panels, views.trains, places, strict=True):
        style.draw_raster(axes, train.times, units, train.size)
        _label_raster(axes, train, order)
        artists.append((axes.lines[0], axes.axvline(0.0, color=VERMILLION, linewidth=1.2)))
    _finish_raster(panels, views)

    def show(frame: int) -> list[Any]:
        """Show all spikes up to the time of a frame."""
        end = views.window * (frame + 1) / frames
        for (dots, line), train, units in zip(artists, views.trains, places, strict=True):
            is_past = train.times <= end
            dots.set_data(1e6 * style.array(train.times[is_past]), style.array(units[is_past]))
            line.set_xdata([1e6 * end, 1e6 * end])
        return [artist for pair in artists for artist in pair]

    return FuncAnimation(figure, show, frames=frames, interval=50, blit=False)


def traces_figure(
    net: Network,
    activity: Activity,
    sample: int = 0,
    layer: str | None = None,
    neurons: Sequence[int] | None = None,
) -> Figure:
    """Draw membranes over time: as the device measured them, and as the model has them for the measured spikes.

    Args:
        net: Network of the pass.
        activity: Result of the pass.
        sample: Index of the sample in the batch.
        layer: Name of a layer, as in `net.layers`; None draws all layers.
        neurons: Neurons whose membranes are drawn; None: those of the largest membranes.

    Raises:
        ValueError: The layer, a neuron or the sample does not exist.
    """
    views = pass_sample(net, activity, sample)
    chosen = [membranes for membranes in views.membranes if layer in (None, membranes.name)]
    if not chosen:
        names = ", ".join(membranes.name for membranes in views.membranes)
        raise ValueError(f"layer={layer!r} is not in the network; choose one of {names}")
    figure = style.new_figure(8.5, 0.6 + 2.7 * len(chosen))
    panels = figure.subplots(len(chosen), 1, squeeze=False, sharex=True)[:, 0]
    for axes, membranes in zip(panels, chosen, strict=True):
        _draw_membranes(axes, membranes, shown_neurons(membranes, neurons), views.dt)
    panels[-1].set_xlabel("time (µs)")
    return figure


def shown_neurons(membranes: Membranes, neurons: Sequence[int] | None = None) -> list[int]:
    """Return the neurons to draw: those requested, or those of the largest membranes, in ascending order.

    Raises:
        ValueError: A neuron does not exist.
    """
    traces = membranes.modelled if membranes.measured is None else membranes.measured
    count = traces.shape[1]
    if neurons is None:
        largest = traces.amax(0).argsort(descending=True, stable=True)[:SHOWN_NEURONS]
        return sorted(int(neuron) for neuron in largest)
    absent = [neuron for neuron in neurons if not 0 <= neuron < count]
    if absent:
        raise ValueError(f"neurons={list(neurons)}: {membranes.name} has neurons 0 to {count - 1}, not {absent[0]}")
    return list(neurons)


def rates_figure(net: Network, activity: Activity) -> Figure:
    """Draw the histogram of the neurons' mean numbers of spikes per sample, with silent and saturated neurons.

    Args:
        net: Network of the pass.
        activity: Result of the pass, better of hundreds of samples than of few.

    Raises:
        ValueError: No layer spikes.
    """
    layers = [layer for layer in neuron_firing(net, activity) if layer.spikes is not None]
    if not layers:
        raise ValueError("no layer of the network spikes, so there are no rates; look at traces_figure")
    figure = style.new_figure(7.0, 0.5 + 2.8 * len(layers))
    for axes, layer in zip(figure.subplots(len(layers), 1, squeeze=False)[:, 0], layers, strict=True):
        _draw_rates(axes, layer, spike_limit(net.steps))
    return figure


def _raster_panels(views: PassSample) -> tuple[Figure, list[Axes]]:
    heights = [1.0 if train.size <= 32 else 1.6 for train in views.trains]
    figure = style.new_figure(8.0, 0.7 + 1.5 * sum(heights))
    panels = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    return figure, list(panels)


def _places(train: Train, order: str) -> Tensor:
    """Return the row of each spike `[E]`.

    Raises:
        ValueError: The order is not known.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is not known; choose one of {', '.join(ORDERS)}")
    return train.ranks()[train.units] if order == "first_spike" else train.units


def _label_raster(axes: Axes, train: Train, order: str) -> None:
    silent = train.size - len(set(train.units.tolist()))
    axes.set_title(f"{train.name}: {len(train.times)} spikes, {silent} of {train.size} silent", fontsize=10, loc="left")
    axes.set_ylabel("neurons by\nfirst spike" if order == "first_spike" else "neuron")


def _finish_raster(panels: Sequence[Axes], views: PassSample) -> None:
    for axes in panels:
        axes.set_xlim(-0.01e6 * views.window, 1.01e6 * views.window)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("time (µs)")


def _draw_membranes(axes: Axes, membranes: Membranes, neurons: Sequence[int], dt: float) -> None:
    times = 1e6 * dt * np.arange(len(membranes.modelled))
    for index, neuron in enumerate(neurons):
        colour = style.COLOURS[index % len(style.COLOURS)]
        if membranes.measured is not None:
            trace = style.array(membranes.measured[:, neuron])
            axes.plot(times, trace, color=colour, linewidth=2.4, alpha=0.5, label=f"neuron {neuron}")
        label = f"neuron {neuron}" if membranes.measured is None else None
        axes.plot(times, style.array(membranes.modelled[:, neuron]), "--", color=colour, linewidth=1.3, label=label)
    if membranes.spiking:
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    kinds = "modelled (dashed)" if membranes.measured is None else "measured (wide) and modelled (dashed)"
    axes.set_title(f"{membranes.name}: {kinds}", fontsize=10, loc="left")
    axes.set_ylabel("membrane\n(threshold = 1)")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    axes.grid(alpha=0.3)


def _draw_rates(axes: Axes, layer: NeuronFiring, limit: float) -> None:
    assert layer.spikes is not None  # a readout is left out
    rates = style.array(layer.spikes)
    edges = np.linspace(0.0, (float(rates.max(initial=0.0)) or 1.0) * 1.0001, 31)
    silent = style.array(layer.silent) > 0
    saturated = style.array(layer.saturated) > 0
    groups = (
        (~silent & ~saturated, BLUE, "neurons"),
        (silent, GREY, f"{int(silent.sum())} silent"),
        (saturated, VERMILLION, f"{int(saturated.sum())} saturated"),
    )
    base = np.zeros(len(edges) - 1)
    for mask, colour, name in groups:
        counts = np.histogram(rates[mask], edges)[0]
        axes.stairs(base + counts, edges, baseline=base, fill=True, color=colour, label=name)
        base = base + counts
    if limit <= edges[-1]:
        axes.axvline(limit, color=VERMILLION, linewidth=1.0, linestyle="--")
    axes.axvline(float(rates.mean()), color=GREEN, linewidth=1.2, label=f"mean {rates.mean():.2f}")
    axes.set(xlabel="spikes per sample", ylabel="neurons")
    axes.set_title(f"{layer.name}, {len(rates)} neurons", fontsize=10, loc="left")
    style.integer_ticks(axes.yaxis)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
