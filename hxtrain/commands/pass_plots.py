"""Figures of one pass of an evaluated network: spikes, membranes, rates of neurons, and the chip."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hxtrain.datasets import Source
from hxtrain.execution import device_of
from hxtrain.network import Network
from hxtrain.network.firing import neuron_firing
from hxtrain.plots import chip_figure, raster_figure, rates_figure, style, traces_figure

SAMPLES = 200
"""Number of samples whose firing is drawn."""


@torch.no_grad()
def draw_pass(folder: Path, net: Network, source: Source, masks: list[Tensor | None] | None = None) -> None:
    """Run the first samples once more, and draw the pass into `folder`: `raster.png`, `traces.png`, and what fits.

    Args:
        folder: Folder of the figures.
        net: Network on its device, or in software.
        source: Samples.
        masks: Active neurons of each layer; None keeps all.
    """
    activity = net(source.spikes(torch.arange(min(SAMPLES, len(source)))).to(net.torch_device), masks)
    figures = {"raster": raster_figure(net, activity), "traces": traces_figure(net, activity)}
    if any(layer.neurons.spiking for layer in net.layers):
        figures["rates"] = rates_figure(net, activity)
    device = device_of(net)
    chip = None if device is None else device.backend.circuit_map
    if chip is not None:
        figures["chip"] = chip_figure(chip, neuron_firing(net, activity))
    for name, figure in figures.items():
        style.save(figure, folder / f"{name}.png")
