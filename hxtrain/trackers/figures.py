"""Images of a training as pixels: a raster of spikes, and weights as sent to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hxtrain.execution import device_of, sent_weights
from hxtrain.network import Activity, Network
from hxtrain.plots.spikes import raster_figure
from hxtrain.plots.style import array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 80
"""Dots per inch of a figure."""
SMALLEST = 240
"""Smallest width and height of an image of weights (pixels), unless a weight would have more than 16."""
POSITIVE = np.array([178.0, 24.0, 43.0])
NEGATIVE = np.array([33.0, 102.0, 172.0])
"""Colours of the largest weights of either sign; 0 is white."""


def raster(net: Network, activity: Activity) -> NDArray[np.uint8]:
    """Return the raster of the first sample of a pass: input events and the spikes of each layer."""
    return pixels(raster_figure(net, activity))


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as pixels `[H, W, 3]`, without files or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def weights(net: Network) -> dict[str, NDArray[np.uint8]]:
    """Return the integer weights of each projection as an image, a row for each target neuron; empty in software."""
    device = device_of(net)
    if device is None or device.plan is None or net.in_software:
        return {}
    limit = device.plan.capabilities.weight_max
    return {name: coloured(array(matrix) / limit) for name, matrix in sent_weights(net).items()}


def coloured(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a matrix of values in -1..1 as an image: red is positive, blue negative; a value is a square."""
    share = np.abs(values)[:, :, None].clip(0, 1)
    image = 255 * (1 - share) + np.where(values[:, :, None] > 0, POSITIVE, NEGATIVE) * share
    side = int(np.clip(-(-SMALLEST // max(1, min(values.shape))), 1, 16))
    squares: NDArray[np.uint8] = image.round().astype(np.uint8).repeat(side, 0).repeat(side, 1)
    return squares
