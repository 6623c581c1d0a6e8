"""Figures of a training as pixels: rasters of spikes, and weights as sent to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hxtrain.execution import device_of, sent_weights
from hxtrain.network import Activity, Network
from hxtrain.plots import style
from hxtrain.plots.training import weights_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 80
"""Dots per inch of an image."""


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as pixels `[H, W, 3]`, without files or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def raster(net: Network, activity: Activity) -> NDArray[np.uint8] | None:
    """Return the raster of the first sample of a pass: a panel for each spiking layer; None without such a layer."""
    layers = [layer for layer in activity.layers if layer.fired is not None]
    if not layers:
        return None
    figure = style.new_figure(7, 0.6 + 2.2 * len(layers))
    panels = figure.subplots(len(layers), 1, squeeze=False, sharex=True)[:, 0]
    for axes, layer, name in zip(panels, layers, [layer.name for layer in net.layers], strict=False):
        events = layer.times(net.dt)
        is_first = events.sample == 0
        style.draw_raster(axes, events.time[is_first], events.unit[is_first], events.units)
        axes.set_ylabel(f"{name}: neuron")
    panels[-1].set_xlabel("time (µs)")
    return pixels(figure)


def weights(net: Network) -> NDArray[np.uint8] | None:
    """Return the integer weights of all projections as an image; None in software, which has none."""
    device = device_of(net)
    if device is None or device.plan is None:
        return None
    return pixels(weights_figure(sent_weights(net), device.plan.capabilities.weight_max))
