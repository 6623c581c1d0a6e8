r"""The twin: an ideal software model of the network, on the grid of the traces.

    I[t+1] = alpha I[t] + W x[t]
    U[t+1] = beta U[t] + I[t+1] - S[t]        soft reset by subtraction, no refractory period
    S[t]   = 1 where U[t] > 1

with float weights (Cramer, Billaudelle et al., PNAS 2022, software reference). The reset only
subtracts a decaying trace from the linear response, so the drive of all steps is computed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .activity import LayerActivity
from .learning import GridEvents, decay, over_time

if TYPE_CHECKING:
    from .network import Network


def simulate(net: Network, weights: list[Tensor], events: GridEvents) -> list[LayerActivity]:
    """Run the network in software; returns spikes and membranes `[T, B, N]` of each layer."""
    result: list[LayerActivity] = []
    inputs: Tensor | None = None
    for layer, weight in zip(net.layers, weights, strict=True):
        drive = events.drive(weight) if inputs is None else inputs @ weight.t()
        trace = over_time(net.psp(layer), drive)
        if not layer.neurons.spiking:
            result.append(LayerActivity(None, trace))
            continue
        inputs = fire(trace, decay(net.dt, layer.neurons.tau_mem))
        result.append(LayerActivity(inputs, trace))
    return result


def fire(membrane: Tensor, beta: float) -> Tensor:
    """Return the spikes of a free membrane `[T, B, N]`, and subtract the resets from it in place."""
    spikes = torch.empty_like(membrane)
    reset = torch.zeros_like(membrane[0])
    for u, s in zip(membrane.unbind(0), spikes.unbind(0), strict=True):
        u.sub_(reset)
        torch.gt(u, 1.0, out=s)
        reset.mul_(beta).add_(s)
    return spikes
