"""snnTorch: Synaptic (RSynaptic) neurons stepped in a loop, the linear layers applied to all steps at once."""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor

from .common import SLOPE, Peer, Task, TorchPeer, linear


def build(task: Task) -> Peer:
    """Return the peer."""
    first, second = linear(task.hidden), linear(task.readout)
    spike = surrogate.fast_sigmoid(slope=SLOPE)
    decays = {"alpha": task.decay, "beta": task.decay}
    weights = [first.weight]
    hidden: Any
    if task.recurrent is None:
        hidden = snntorch.Synaptic(**decays, spike_grad=spike, reset_mechanism="subtract")
    else:
        hidden = snntorch.RSynaptic(
            **decays, linear_features=len(task.recurrent), spike_grad=spike, reset_mechanism="subtract"
        )
        hidden.recurrent = linear(task.recurrent)  # without a bias
        weights.append(hidden.recurrent.weight)
    readout: Any = snntorch.Synaptic(**decays, spike_grad=spike, reset_mechanism="none")

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        state = hidden.reset_mem()  # of recurrent neurons, the spikes are a part of the state
        spikes, traces = [], []
        for drive in first(x).unbind(0):
            spike, *state = hidden(drive, *state)
            spikes.append(spike)
            state = state if task.recurrent is None else (spike, *state)
        hidden_spikes = torch.stack(spikes)
        current, membrane = readout.reset_mem()
        for drive in second(hidden_spikes).unbind(0):
            _, current, membrane = readout(drive, current, membrane)
            traces.append(membrane)
        return torch.stack(traces), hidden_spikes

    return TorchPeer(task, weights, [second.weight], forward)
