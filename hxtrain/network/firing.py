"""Firing of single neurons in a pass: which ones are silent, and which ones are driven to their limit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .activity import Activity
from .network import Network

BURSTING = 8.0
"""Spikes per neuron and sample, in a window of 20 steps, above which a neuron is driven to its limit."""
SATURATED_SHARE = 0.10
"""Share of trace samples, or of samples, at the edge of the recorded range from which membranes count as saturated."""
EDGE = 0.1
"""Width of the edge of the recorded range, in units of the threshold."""


def spike_limit(steps: int) -> float:
    """Return the spikes per neuron and sample above which a neuron is driven to its limit, in a window of `steps`."""
    return BURSTING * steps / 20


class NeuronFiring(NamedTuple):
    """Firing of the `N` neurons of a layer.

    Attributes:
        name: Name of the layer.
        spikes: Mean number of spikes per sample `[N]`; None for a readout.
        silent: Mask of neurons that spike in no sample, bool `[N]`; a readout has none.
        saturated: Mask of neurons that fire close to what the refractory period allows, or, in a readout, whose
            membranes reach the upper edge of the recorded range in a tenth of the samples, bool `[N]`.
    """

    name: str
    spikes: Tensor | None
    silent: Tensor
    saturated: Tensor


@torch.no_grad()
def neuron_firing(net: Network, activity: Activity) -> list[NeuronFiring]:
    """Return the firing of each layer in a pass, on the CPU.

    Args:
        net: Network of the pass.
        activity: Result of the pass, better of hundreds of samples than of few.
    """
    layers = []
    for layer, outcome in zip(net.layers, activity.layers, strict=True):
        if outcome.counts is not None:
            spikes = outcome.counts.detach().double().mean(0).cpu()
            layers.append(NeuronFiring(layer.name, spikes, spikes == 0, spikes > spike_limit(net.steps)))
            continue
        trace = outcome.trace.detach()
        silent = torch.zeros(trace.shape[2], dtype=torch.bool)
        if activity.cost is None or float(trace.amax() - trace.amin()) < 1:
            layers.append(NeuronFiring(layer.name, None, silent, silent.clone()))
            continue
        share = (trace > trace.amax() - EDGE).any(0).double().mean(0)
        layers.append(NeuronFiring(layer.name, None, silent, (share >= SATURATED_SHARE).cpu()))
    return layers
